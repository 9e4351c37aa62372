module sandyard.dev/contract

go 1.24

require github.com/daytonaio/daytona/libs/sdk-go v0.190.0
