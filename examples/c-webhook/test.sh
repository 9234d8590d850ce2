#!/usr/bin/env bash
# The unit tests, compiled for this machine.
source "$(dirname "$0")/tools.sh"
need cc
cc -std=gnu11 -g -Wall -Wextra -Wno-unused-parameter -o "$build/test" \
  "$project"/test/*.c "$project"/src/{text,json,destination,answer,order,trace,cloud_event}.c
exec "$build/test"
