"""The names that BUILD loads, for Bazel before 7: its native rules, so that nothing is downloaded."""

py_library = native.py_library
py_test = native.py_test
