// SPDX-License-Identifier: Apache-2.0
#include "commands/list.h"

#include <fmt/format.h>
#include <sys/wait.h>

#include "base/error.h"
#include "base/terminal.h"
#include "process/trace.h"
#include "verdicts/runtime_report.h"

namespace forksafe::cli {
namespace {

// Collects what each process has loaded, and prints that as text or as JSON.
class Report {
 public:
  explicit Report(bool json) : json_(json) {}

  void add(const Process& process, const std::vector<ThreadRuntime>& runtimes,
           const std::vector<OtherThreads>& others) {
    if (json_) {
      for (auto entry : runtime_json(runtimes)) {
        entry["pid"] = process.pid();
        entry["command"] = process.arguments();
        entries_.push_back(entry);
      }
      for (auto entry : other_threads_json(others)) {
        entry["pid"] = process.pid();
        entry["command"] = process.arguments();
        entries_.push_back(entry);
      }
      return;
    }
    if (runtimes.empty() && others.empty()) return;
    if (!text_.empty()) text_ += '\n';
    text_ += fmt::format("process {}\n{}{}{}{}", process.name(),
                         runtimes.empty() ? "" : runtime_table(runtimes), linked_in_note(runtimes),
                         other_threads_note(others), fork_care_note(process, runtimes));
  }

  void print(const std::string& nothing) const {
    if (json_) {
      print_json(entries_);
    } else {
      fmt::print("{}", text_.empty() ? nothing + "\n" : text_);
    }
  }

 private:
  bool json_;
  std::string text_;
  nlohmann::ordered_json entries_ = nlohmann::ordered_json::array();
};

constexpr const char* kNothing = "no BLAS or OpenMP runtime that forksafe knows";

}  // namespace

int list(const ListOptions& options) {
  Report report(options.json);
  if (options.pid) {
    const Process process(*options.pid);
    const Objects objects(process);
    std::vector<ThreadRuntime> runtimes = find_thread_runtimes(process, objects, {});
    std::vector<OtherThreads> others;
    // Stop the threads only if there may be workers to count.
    if (!runtimes.empty() || process.status().threads > 1) {
      try {
        const std::vector<ThreadStack> stacks = read_settled_stacks(process, objects);
        runtimes = find_thread_runtimes(process, objects, stacks);
        others = find_other_threads(process, objects, stacks, runtimes);
      } catch (const Error& e) {
        fmt::print(stderr, "forksafe: list: threads are not counted: {}\n", e.what());
      }
    }
    report.add(process, runtimes, others);
    report.print(fmt::format("process {} has loaded {}", process.name(), kNothing));
    return 0;
  }

  const Traced traced = trace(options.command, 0, [&](pid_t pid, Moment moment) {
    ProcessStatus status;
    // A forked child has the same runtimes as its parent, which is listed.
    if (moment != Moment::kExit || !read_status(pid, &status) || status.forked) return true;
    try {
      const Process process(pid);
      const Objects objects(process);
      report.add(process, find_thread_runtimes(process, objects, {}), {});
    } catch (const Error&) {
      // A static program, or one of another architecture, has nothing to list.
    }
    return true;
  });
  report.print(fmt::format("the command loads {}", kNothing));
  if (WIFSIGNALED(traced.status)) {
    fmt::print(stderr, "forksafe: list: the command was ended by signal {}\n",
               WTERMSIG(traced.status));
  } else if (WEXITSTATUS(traced.status) != 0) {
    fmt::print(stderr, "forksafe: list: the command ended with status {}\n",
               WEXITSTATUS(traced.status));
  }
  return 0;
}

}  // namespace forksafe::cli
