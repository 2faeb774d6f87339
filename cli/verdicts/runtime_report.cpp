// SPDX-License-Identifier: Apache-2.0
#include "verdicts/runtime_report.h"

#include <fmt/format.h>

#include <cstdio>

#include "base/words.h"

namespace forksafe::cli {
namespace {

using Json = nlohmann::ordered_json;

Json or_null(const std::string& text) { return text.empty() ? Json() : Json(text); }
Json or_null(const std::optional<int>& number) { return number ? Json(*number) : Json(); }
std::string or_dash(const std::optional<int>& number) {
  return number ? std::to_string(*number) : "-";
}

// The same prefix as in threadpoolctl, which recognises libraries by the start of the file name.
std::string prefix_of(const ThreadRuntime& r) {
  if (r.linked_in) return r.is_openmp() ? "libgomp" : "libopenblas";
  const std::string name = r.object->name();
  for (const char* prefix : {"libopenblas", "libscipy_openblas", "libblas", "libblis", "libmkl_rt",
                             "libmkl_core", "libiomp", "libgomp", "libomp"}) {
    if (starts_with(name, prefix)) return prefix;
  }
  return name.substr(0, name.find('.'));
}

const char* internal_api_of(const ThreadRuntime& r) {
  switch (r.kind) {
    case Kind::kOpenBlas: return "openblas";
    case Kind::kBlis: return "blis";
    case Kind::kMkl: return "mkl";
    default: return "openmp";
  }
}

std::string threading_layer_of(const ThreadRuntime& r) {
  if (r.is_openmp()) return "";
  if (r.kind == Kind::kMkl) {
    if (r.threading == Threading::kTbb) return "tbb";
    if (r.threading == Threading::kNone) return "sequential";
    return r.openmp != nullptr && r.openmp->defines("__kmpc_fork_call") ? "intel" : "gnu";
  }
  if (r.threading == Threading::kNone) return "disabled";
  return r.threading == Threading::kOpenMp ? "openmp" : "pthreads";
}

Colour colour_of(const Fork& fork) { return fork.safe ? Colour::kGreen : Colour::kRed; }

const char* told_by(NamedBy named_by) {
  switch (named_by) {
    case NamedBy::kSymbolTable: return "symbol table tells";
    case NamedBy::kDebugFile: return "debug file tells";
    default: return "dynamic symbols tell";
  }
}

bool needs_guard(const ThreadRuntime& r) { return !r.idle.safe || !r.in_flight.safe; }

std::string guard_word(const ThreadRuntime& r) {
  if (r.one_thread) return "one thread";
  if (r.guarded) return "yes";
  return needs_guard(r) ? "no" : "not needed";
}

}  // namespace

std::string describe(const ThreadRuntime& r) {
  std::string text = r.name();
  if (!r.version.empty()) text += " " + r.version;
  if (r.left_alone || (r.is_openmp() && r.linked_in)) {
    return fmt::format("{}, linked into {}", text, r.object->name());
  }
  if (r.is_openmp()) return text;
  switch (r.threading) {
    case Threading::kNone: return text + " without threads";
    case Threading::kOwn: return text + " on its own threads";
    case Threading::kTbb: return text + " on TBB";
    case Threading::kOpenMp: break;
  }
  return text + (r.openmp != nullptr ? " on " + r.openmp->name() : std::string(" on OpenMP"));
}

Cell guard_cell(const std::vector<ThreadRuntime>& runtimes, const Guard& guard) {
  bool one_thread = false;
  for (const ThreadRuntime& r : runtimes) {
    if (!r.guarded && needs_guard(r)) return {"no", Colour::kRed};
    one_thread = one_thread || r.one_thread;
  }
  if (one_thread) return {"one thread"};
  if (guard.enabled) return {"yes", Colour::kGreen};
  return {"not needed"};
}

std::string runtime_table(const std::vector<ThreadRuntime>& runtimes) {
  std::vector<std::vector<Cell>> rows;
  for (const ThreadRuntime& r : runtimes) {
    const std::string guard = guard_word(r);
    rows.push_back({{describe(r)},
                    {or_dash(r.threads)},
                    {or_dash(r.workers)},
                    {r.linked},
                    {r.idle.word, colour_of(r.idle)},
                    {r.in_flight.word, colour_of(r.in_flight)},
                    {guard, guard == "yes" ? Colour::kGreen : Colour::kNone},
                    {r.object->path()}});
  }
  return table(
      {"RUNTIME", "THREADS", "WORKERS", "LINKED", "FORK IDLE", "FORK IN FLIGHT", "GUARDED", "PATH"},
      rows);
}

std::string linked_in_note(const std::vector<ThreadRuntime>& runtimes) {
  std::string text;
  for (const ThreadRuntime& r : runtimes) {
    if (!r.linked_in) continue;
    text += fmt::format("{} is linked into {}, as its {}.", r.name(), r.object->name(),
                        told_by(r.named_by));
    text += r.left_alone ? fmt::format(" forksafe leaves it alone: link it to {} instead.\n",
                                       shared_library(r))
                         : "\n";
  }
  return text;
}

std::string fork_care_note(const Process& process, const std::vector<ThreadRuntime>& runtimes) {
  for (const ThreadRuntime& r : runtimes) {
    if (!r.is_openmp() || r.fork_care_off.empty()) continue;
    const std::optional<std::string> setting = fork_care_setting(process);
    const char* cure = "The program itself sets it: set it to TRUE there.";
    if (setting) {
      cure = setting->empty()
                 ? "Set it to TRUE, as forksafe COMMAND does."
                 : "Set it to TRUE: forksafe COMMAND does not change a value that is set.";
    }
    return fmt::format(
        "KMP_INIT_AT_FORK is {}, so the fork handlers of {} are off, and children hang. {}\n",
        r.fork_care_off, r.name(), cure);
  }
  return "";
}

std::string other_threads_note(const std::vector<OtherThreads>& others) {
  std::string text;
  for (const OtherThreads& other : others) {
    text += fmt::format(
        "{}, {}", describe(other),
        other.start_again ? "which starts new ones in a child" : "which forksafe does not know");
    const bool has_path = other.object != nullptr && !other.is_program;
    text += has_path ? fmt::format(": {}\n", other.object->path()) : "\n";
  }
  return text;
}

Json other_threads_json(const std::vector<OtherThreads>& others) {
  Json result = Json::array();
  for (const OtherThreads& other : others) {
    result.push_back({{"user_api", nullptr},
                      {"filepath", other.object != nullptr ? Json(other.object->path()) : Json()},
                      {"workers", other.count},
                      {"start_again_in_children", other.start_again}});
  }
  return result;
}

Json runtime_json(const std::vector<ThreadRuntime>& runtimes) {
  Json result = Json::array();
  for (const ThreadRuntime& r : runtimes) {
    Json entry;
    entry["user_api"] = r.is_openmp() ? "openmp" : "blas";
    entry["internal_api"] = internal_api_of(r);
    entry["num_threads"] = or_null(r.threads);
    entry["prefix"] = prefix_of(r);
    entry["filepath"] = r.object->path();
    entry["version"] = or_null(r.version);
    if (!r.is_openmp()) {
      entry["threading_layer"] = threading_layer_of(r);
      entry["architecture"] = or_null(r.architecture);
      entry["openmp"] = r.openmp != nullptr ? Json(r.openmp->path()) : Json();
    }
    entry["name"] = r.name();
    entry["num_threads_from"] = or_null(r.threads_from);
    entry["workers"] = or_null(r.workers);
    entry["linked"] = r.linked;
    static const char* const kNames[] = {nullptr, "dynamic symbols", "symbol table", "debug file"};
    entry["named_by"] = kNames[static_cast<int>(r.named_by)];
    entry["needed_by"] = r.needed_by;
    entry["fork_idle"] = {{"safe", r.idle.safe}, {"text", r.idle.text}};
    entry["fork_in_flight"] = {{"safe", r.in_flight.safe}, {"text", r.in_flight.text}};
    entry["guarded"] = r.guarded;
    entry["one_thread"] = r.one_thread;
    entry["degraded_forks"] = r.degraded_forks;
    result.push_back(entry);
  }
  return result;
}

void print_json(const Json& json) {
  fmt::print("{}\n", json.dump(2, ' ', false, Json::error_handler_t::replace));
}

}  // namespace forksafe::cli
