// SPDX-License-Identifier: Apache-2.0
#include "process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <stdexcept>

#include "verdicts/diagnosis.h"

namespace forksafe_test {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

[[noreturn]] void become(const Command& command, int output) {
  setsid();
  dup2(output, STDOUT_FILENO);
  dup2(output, STDERR_FILENO);
  const int null = open("/dev/null", O_RDONLY);
  dup2(null, STDIN_FILENO);
  for (const auto& [name, value] : command.environment) setenv(name.c_str(), value.c_str(), 1);
  std::vector<char*> arguments;
  for (const std::string& a : command.arguments) arguments.push_back(const_cast<char*>(a.c_str()));
  arguments.push_back(nullptr);
  execvp(arguments[0], arguments.data());
  _exit(127);
}

// The verdict of `forksafe diagnose` on each process of the tree that is stuck.
std::vector<std::string> where_stuck(pid_t leader) {
  using namespace forksafe::cli;
  if (emulated()) return {"no stacks can be read here"};
  std::vector<std::string> result;
  for (const Diagnosis& d : diagnose_processes(process_tree(leader))) {
    if (d.stuck) {
      result.push_back((d.pid == leader ? "parent: " : "child: ") + d.code + ", " + d.place);
    }
  }
  return result;
}

}  // namespace

void end_session(pid_t leader) {
  for (int round = 0; round < 500; ++round) {
    kill(-leader, SIGKILL);
    int status;
    pid_t reaped;
    while ((reaped = waitpid(-leader, &status, WNOHANG)) > 0) {
    }
    if (reaped < 0 && errno == ECHILD) return;
    usleep(10000);
  }
}

bool emulated() { return getenv("FORKSAFE_TEST_EMULATED") != nullptr; }

int Outcome::forks() const {
  int count = 0;
  while (static_cast<size_t>(count) < output.size() && output[static_cast<size_t>(count)] == '.') {
    ++count;
  }
  return count;
}

std::string Outcome::describe() const {
  static const char* const kEnds[] = {"exited", "was killed", "got stuck", "took too long"};
  std::string text = std::string("it ") + kEnds[static_cast<int>(end)] + " with " +
                     std::to_string(status) + " after " + std::to_string(seconds) + " s and " +
                     std::to_string(forks()) + " forks";
  for (const std::string& place : stuck) text += "; " + place;
  return text + "\n" + output.substr(static_cast<size_t>(forks()));
}

Outcome run(const Command& command) {
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  int pipe_ends[2];
  if (pipe2(pipe_ends, O_CLOEXEC) != 0) throw std::runtime_error("pipe2");
  const auto start = Clock::now();
  const pid_t leader = fork();
  if (leader < 0) throw std::runtime_error("fork");
  if (leader == 0) become(command, pipe_ends[1]);
  close(pipe_ends[1]);

  Outcome outcome = {};
  auto last_output = start;
  int status = 0;
  for (;;) {
    pollfd output = {pipe_ends[0], POLLIN, 0};
    poll(&output, 1, 20);
    if ((output.revents & POLLIN) != 0) {
      char buffer[4096];
      const ssize_t size = read(pipe_ends[0], buffer, sizeof buffer);
      if (size > 0) outcome.output.append(buffer, static_cast<size_t>(size));
      last_output = Clock::now();
      continue;
    }
    if (waitpid(leader, &status, WNOHANG) == leader) {
      outcome.end = WIFEXITED(status) ? Outcome::End::kExited : Outcome::End::kKilled;
      outcome.status = WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status);
      break;
    }
    if (seconds_since(start) > command.total_seconds) {
      outcome.end = Outcome::End::kTooLong;
      outcome.stuck = where_stuck(leader);
      break;
    }
    if (seconds_since(last_output) > command.quiet_seconds) {
      outcome.stuck = where_stuck(leader);
      if (!outcome.stuck.empty()) {
        outcome.end = Outcome::End::kStuck;
        break;
      }
      last_output = Clock::now();  // slow, not stuck: 32 threads on 2 cores may take seconds a call
    }
  }
  outcome.seconds = seconds_since(start);
  end_session(leader);
  close(pipe_ends[0]);
  return outcome;
}

}  // namespace forksafe_test
