#!/usr/bin/env bash
# The unit tests, compiled for this machine.
source "$(dirname "$0")/../languages.sh"
cc -std=gnu11 -g -Wall -Wextra -Wno-unused-parameter -o "$tools/test" \
  "$example"/test/*.c "$example"/src/{text,json,destination,answer,order,cloud_event}.c
exec "$tools/test"
