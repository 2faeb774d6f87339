// SPDX-License-Identifier: Apache-2.0
// The Python frames of a process, by py-spy (https://github.com/benfred/py-spy) where it is
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
  /// Why there are none; empty where there are some, and where the process is no Python.
  std::string reason;
};

PythonStacks read_python_stacks(const Process& process, const Objects& objects);

}  // namespace forksafe::cli
