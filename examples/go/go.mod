module sandyard.dev/examples

go 1.24

require github.com/daytonaio/daytona/libs/sdk-go v0.190.0
