#!/bin/sh
# In place of rustc: instruments the crates that read requests, so that libFuzzer sees their coverage.
# All of it is stable. The crates that only serve, compile or encrypt would be
# noise, and those that the compiler loads as macros cannot be instrumented.
case " $* " in
  *" --crate-name trainer_host "* | *" --crate-name trainer_core "* | *" --crate-name requests "* | \
  *" --crate-name jsonschema "*)
    exec "$@" -C passes=sancov-module -C codegen-units=1 \
      -C llvm-args=-sanitizer-coverage-level=4 \
      -C llvm-args=-sanitizer-coverage-inline-8bit-counters \
      -C llvm-args=-sanitizer-coverage-pc-table \
      -C llvm-args=-sanitizer-coverage-trace-compares
    ;;
  *) exec "$@" ;;
esac
