// SPDX-License-Identifier: Apache-2.0
#include "commands/diagnose.h"

#include <fmt/format.h>
#include <unistd.h>

#include "base/error.h"
#include "base/terminal.h"
#include "process/python_stack.h"
#include "verdicts/diagnosis.h"
#include "verdicts/runtime_report.h"

namespace forksafe::cli {
namespace {

using Json = nlohmann::ordered_json;

Json to_json(const Diagnosis& d, const PythonStacks& python) {
  const Process& process = d.look->process;
  Json result;
  result["pid"] = process.pid();
  result["parent"] = process.status().parent;
  result["command"] = process.arguments();
  result["forked"] = process.status().forked;
  result["stuck"] = d.stuck;
  result["code"] = d.code;
  result["text"] = d.what;
  result["cure"] = d.cure.empty() ? Json() : Json(d.cure);
  result["thread"] = d.stuck ? Json(d.tid) : Json();
  result["place"] = d.stuck ? Json(d.place) : Json();
  result["library"] = d.stuck ? Json(d.library) : Json();
  result["guarded"] = d.look->guard.enabled;
  result["runtimes"] = runtime_json(d.look->runtimes);
  result["other_threads"] = other_threads_json(d.look->others);
  result["threads"] = Json::array();
  for (const ThreadStack& stack : d.look->stacks) {
    Json thread;
    thread["tid"] = stack.tid;
    thread["name"] = stack.name;
    thread["frames"] = Json::array();
    for (const Frame& frame : stack.frames) {
      thread["frames"].push_back(
          {{"function", frame.function.empty() ? Json() : Json(frame.function)},
           {"object", frame.object != nullptr ? Json(frame.object->path()) : Json()},
           {"address", fmt::format("{:#x}", frame.address)}});
    }
    const auto found = python.frames.find(stack.tid);
    if (found != python.frames.end()) thread["python"] = found->second;
    result["threads"].push_back(thread);
  }
  return result;
}

std::string verdict(const Diagnosis& d) {
  const std::string name = d.look->process.name();
  std::string text = d.stuck ? paint(name + " is stuck.", Colour::kRed)
                             : paint(name + " is not stuck in a runtime.", Colour::kGreen);
  text += "\n" + wrapped(d.what, "  ");
  // The cure ends with a command that the user copies, so it stays on one line.
  if (!d.cure.empty()) text += fmt::format("  {} {}\n", paint("Cure:", Colour::kBold), d.cure);
  return text;
}

std::string stacks(const Diagnosis& d, const PythonStacks& python) {
  std::string text;
  for (const ThreadStack& stack : d.look->stacks) {
    const bool marked = d.stuck && stack.tid == d.tid;
    text += "\n" +
            paint(fmt::format("Thread {} ({}){}", stack.tid, stack.name,
                              marked ? ", the one that is stuck" : ""),
                  Colour::kBold) +
            "\n";
    if (stack.frames.empty())
      text += "  its stack could not be read, because the thread did not stop\n";
    for (const Frame& frame : stack.frames) {
      text +=
          fmt::format("  {}  {}\n",
                      frame.function.empty() ? fmt::format("{:#x}", frame.address) : frame.function,
                      frame.object != nullptr ? frame.object->name() : "");
    }
    const auto found = python.frames.find(stack.tid);
    if (found == python.frames.end()) continue;
    text += "  in Python:\n";
    for (const std::string& frame : found->second) text += "    " + frame + "\n";
  }
  if (!python.reason.empty()) text += "\n" + python.reason + "\n";
  return text;
}

// Diagnoses one process and prints all its stacks. Also tells if descendants are stuck.
int diagnose_one(const DiagnoseOptions& options) {
  const std::vector<Diagnosis> tree = diagnose_processes(process_tree(options.pid));
  const Diagnosis& d = tree.front();
  if (d.look == nullptr) throw Error(d.error);
  const PythonStacks python = read_python_stacks(d.look->process, d.look->objects);
  std::vector<pid_t> stuck;
  for (const Diagnosis& other : tree) {
    if (other.stuck && other.pid != d.pid) stuck.push_back(other.pid);
  }
  if (options.json) {
    Json result = to_json(d, python);
    result["stuck_descendants"] = stuck;
    print_json(Json::array({result}));
  } else {
    fmt::print("{}", verdict(d));
    if (!stuck.empty()) {
      fmt::print("  {}\n",
                 paint(fmt::format("But {} of its descendants {} stuck:  forksafe diagnose "
                                   "--children {}",
                                   stuck.size(), stuck.size() == 1 ? "is" : "are", options.pid),
                       Colour::kRed));
    }
    fmt::print("{}", stacks(d, python));
  }
  return d.stuck || !stuck.empty() ? 1 : 0;
}

// Diagnoses the whole tree: one verdict for each process.
int diagnose_tree(const DiagnoseOptions& options) {
  bool any_stuck = false;
  Json result = Json::array();
  std::string text;
  for (const Diagnosis& d : diagnose_processes(process_tree(options.pid))) {
    any_stuck = any_stuck || d.stuck;
    if (d.look == nullptr) {
      if (d.pid == options.pid) throw Error(d.error);
      text += fmt::format("\n{}\n", d.error);
      result.push_back({{"pid", d.pid}, {"error", d.error}});
      continue;
    }
    text += (text.empty() ? "" : "\n") + verdict(d);
    if (options.json) {
      result.push_back(to_json(d, read_python_stacks(d.look->process, d.look->objects)));
    }
  }
  if (options.json) {
    print_json(result);
  } else {
    fmt::print("{}", text);
  }
  return any_stuck ? 1 : 0;
}

}  // namespace

int diagnose(const DiagnoseOptions& options) {
  if (options.pid == getpid()) {
    throw Error(fmt::format("process {}: this is forksafe itself: give another id", options.pid));
  }
  return options.children ? diagnose_tree(options) : diagnose_one(options);
}

}  // namespace forksafe::cli
