// SPDX-License-Identifier: Apache-2.0
// Reads the Python frames of a process with py-spy (https://github.com/benfred/py-spy), if that is
// installed.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "process/objects.h"
#include "process/process.h"

namespace forksafe::cli {

struct PythonStacks {
  /// "multiply (app.py:12)", innermost first, by thread.
  std::map<pid_t, std::vector<std::string>> frames;
  /// Why there are no frames. Empty if there are some, or if the process is not Python.
  std::string reason;
};

PythonStacks read_python_stacks(const Process& process, const Objects& objects);

}  // namespace forksafe::cli
