// SPDX-License-Identifier: Apache-2.0
#include "process/python_stack.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <nlohmann/json.hpp>

#include "base/words.h"
#include "process/stacks.h"

namespace forksafe::cli {
namespace {

constexpr int kPatienceMs = 10 * 1000;

// Reads the output of a program. False if it can't be run, fails or takes too long.
bool read_output(const std::vector<std::string>& command, std::string* output) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return false;
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
  posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
  const std::vector<char*> arguments = as_argv(command);
  pid_t child = 0;
  const int error =
      posix_spawnp(&child, arguments[0], &actions, nullptr, arguments.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  close(ends[1]);
  bool in_time = error == 0;
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(kPatienceMs);
  while (in_time) {
    pollfd readable = {ends[0], POLLIN, 0};
    while (poll(&readable, 1, 20) <= 0 && in_time) {
      continue_late_threads();
      in_time = std::chrono::steady_clock::now() < deadline;
    }
    char buffer[16384];
    const ssize_t size = in_time ? read(ends[0], buffer, sizeof buffer) : -1;
    if (size <= 0) break;
    output->append(buffer, static_cast<size_t>(size));
  }
  close(ends[0]);
  if (error != 0) return false;
  if (!in_time) kill(child, SIGKILL);
  int status = 0;
  return waitpid(child, &status, 0) == child && status == 0;
}

bool is_python(const Process& process, const Objects& objects) {
  if (process.name().find("(python") != std::string::npos) return true;
  for (const auto& object : objects) {
    if (starts_with(object->name(), "libpython")) return true;
  }
  return false;
}

}  // namespace

PythonStacks read_python_stacks(const Process& process, const Objects& objects) {
  PythonStacks result;
  if (!is_python(process, objects)) return result;
  std::string text;
  if (!read_output({"py-spy", "dump", "--json", "--pid", std::to_string(process.pid())}, &text)) {
    result.reason = "for Python's frames, install py-spy (pip install py-spy)";
    if (read_output({"py-spy", "--version"}, &text)) {
      result.reason = "py-spy could not read Python's frames";
    }
    return result;
  }
  const auto threads = nlohmann::json::parse(text, nullptr, false);
  for (const auto& thread : threads.is_array() ? threads : nlohmann::json::array()) {
    if (!thread.contains("os_thread_id") || !thread["os_thread_id"].is_number()) continue;
    auto& frames = result.frames[thread["os_thread_id"].get<pid_t>()];
    for (const auto& frame : thread.value("frames", nlohmann::json::array())) {
      frames.push_back(fmt::format("{} ({}:{})", frame.value("name", "?"),
                                   frame.value("filename", "?"), frame.value("line", 0)));
    }
  }
  if (result.frames.empty()) result.reason = "py-spy found no Python frames";
  return result;
}

}  // namespace forksafe::cli
