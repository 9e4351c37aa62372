module sandyard.dev/examples

go 1.25.4

require github.com/daytonaio/daytona/libs/sdk-go v0.173.0
