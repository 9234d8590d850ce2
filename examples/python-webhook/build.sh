#!/usr/bin/env bash
# Makes the component: build.sh FILE. See ../build.sh.
source "$(dirname "$0")/../languages.sh"
pip_packages
"$tools/bin/componentize-py" --wit-path "$(wit_folder)" --world webhook \
  componentize --python-path "$example" --output "$1" webhook.app
