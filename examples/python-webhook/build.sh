#!/usr/bin/env bash
# Makes the component: build.sh [FILE].
source "$(dirname "$0")/tools.sh"
pip_packages
starts "$tools/bin/componentize-py" --version
"$tools/bin/componentize-py" --wit-path "$project/wit" --world webhook \
  componentize --python-path "$project" --output "$made" webhook.app
