// SPDX-License-Identifier: Apache-2.0
#include "commands/run.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "base/error.h"
#include "base/library.h"
#include "base/words.h"
#include "commands/watch.h"
#include "options.h"
#include "process/objects.h"
#include "process/target.h"

namespace forksafe::cli {
namespace {

struct Setting {
  const char* option;
  const char* variable;
  std::optional<std::string> RunOptions::*value;
};

constexpr Setting kSettings[] = {
    {"--child-threads", "FORKSAFE_CHILD_THREADS", &RunOptions::child_threads},
    {"--wait-ms", "FORKSAFE_WAIT_MS", &RunOptions::wait_ms},
    {"--pool", "FORKSAFE_POOL", &RunOptions::pool},
    {"--log", "FORKSAFE_LOG", &RunOptions::log},
};

// For the callbacks of read_options(), which are plain functions.
const char* asked_name;
const char* asked_value;
std::string complaint;

/// Checks a value with the library's own code, and throws an Error with the reason from its
/// message: "NAME=VALUE can't be read: give ACCEPTED; going on with DEFAULT".
void check_value(const Setting& setting, const std::string& value) {
  const std::string asked = std::string(setting.option) + " " + shell_quote(value);
  if (value.empty()) throw Error(asked + ": the value is empty");
  asked_name = setting.variable;
  asked_value = value.c_str();
  complaint.clear();
  read_options(
      [](const char* name) { return strcmp(name, asked_name) == 0 ? asked_value : nullptr; },
      [](const char* line) { complaint = line; });
  if (complaint.empty()) return;
  const size_t reason = complaint.rfind(" can't be read: ");
  const size_t end = complaint.rfind("; going on with ");
  throw Error(asked + complaint.substr(reason, end - reason));
}

std::string absolute(const std::string& path) {
  if (path[0] == '/') return path;
  char* const folder = getcwd(nullptr, 0);
  if (folder == nullptr) throw Error(std::string("the current folder: ") + strerror(errno));
  std::string result = std::string(folder) + "/" + path;
  free(folder);
  return result;
}

void print(const RunOptions& options, const std::vector<std::string>& changes) {
  for (const std::string& change : changes) {
    const size_t value = change.find('=') + 1;
    printf("%s%s\n", change.substr(0, value).c_str(), shell_quote(change.substr(value)).c_str());
  }
  printf("%s\n", shell_line(options.command).c_str());
}

// The library itself says nothing if it can't write its log, so check that here.
void check_log(const std::string& path) {
  struct stat info = {};
  const size_t slash = path.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  const bool exists = stat(path.c_str(), &info) == 0;
  if (exists && S_ISDIR(info.st_mode)) errno = EISDIR;
  if ((exists && S_ISDIR(info.st_mode)) ||
      access(exists ? path.c_str() : folder.c_str(), W_OK) != 0) {
    throw Error("--log " + shell_quote(path) + ": it can't be written: " + strerror(errno));
  }
}

// The library's log: FORKSAFE_LOG, as an absolute path. Empty if there is none.
std::string log_of(const std::vector<std::string>& environment) {
  static const std::string kName = "FORKSAFE_LOG=";
  for (const std::string& variable : environment) {
    if (variable.compare(0, kName.size(), kName) != 0) continue;
    const std::string log = variable.substr(kName.size());
    return log.empty() || log == "stderr" ? log : absolute(log);
  }
  return "";
}

std::string environment_of(const char* name) {
  const char* value = getenv(name);
  return value != nullptr ? value : "";
}

// Whether `text` names the runtime of AddressSanitizer: GCC's or Clang's.
bool names_asan(const std::string& text) {
  return text.find("libasan.so") != std::string::npos ||
         text.find("libclang_rt.asan") != std::string::npos;
}

// Whether the program behind a command is linked to AddressSanitizer's runtime.
bool needs_asan(const std::string& command) {
  std::string program;
  try {
    program = find_program(find_command(command));
  } catch (const Error&) {
    return false;  // check_target() reports this, unless --force was given
  }
  const auto object = Object::open(program, program, 0);
  bool result = false;
  if (object == nullptr) return result;
  object->image().each_needed([&](const char* name) { result = result || names_asan(name); });
  return result;
}

// The runtime of AddressSanitizer ends a program if another library, such as ours, comes before it.
// The order matters only for functions that it intercepts, and our library defines none of them. So
// switch that check off. The alternative, to put the runtime in front of our library in LD_PRELOAD,
// would load it into all programs that this one starts, and it would report leaks in them.
std::optional<std::string> asan_options(const std::string& command, const std::string& preload) {
  const std::string options = environment_of("ASAN_OPTIONS");
  static const std::string kOption = "verify_asan_link_order";
  if (options.find(kOption) != std::string::npos) return std::nullopt;
  if (!names_asan(preload) && !needs_asan(command)) return std::nullopt;
  return kOption + "=0" + (options.empty() ? "" : ":" + options);
}

}  // namespace

std::vector<std::string> environment_changes(const RunOptions& options,
                                             const std::string& library) {
  const std::string preload = environment_of("LD_PRELOAD");
  std::vector<std::string> changes = {"LD_PRELOAD=" + edit_preload(preload, library)};
  const std::string searched = environment_of("LD_LIBRARY_PATH");
  const std::string search = edit_library_path(searched, library);
  if (search != searched) changes.push_back("LD_LIBRARY_PATH=" + search);
  if (const auto asan = asan_options(options.command[0], preload)) {
    changes.push_back("ASAN_OPTIONS=" + *asan);
  }
  if (options.off) changes.push_back("FORKSAFE=0");
  // LLVM's and Intel's OpenMP have fork handlers of their own, so the library leaves them alone.
  // But scikit-learn switches these handlers off, unless the variable is set.
  const bool is_off = options.off || environment_of("FORKSAFE") == "0";
  if (!is_off && getenv("KMP_INIT_AT_FORK") == nullptr) {
    changes.emplace_back("KMP_INIT_AT_FORK=TRUE");
  }
  for (const Setting& setting : kSettings) {
    const std::optional<std::string>& given = options.*setting.value;
    if (!given) continue;
    check_value(setting, *given);
    const bool is_path = setting.value == &RunOptions::log && *given != "stderr";
    changes.push_back(std::string(setting.variable) + "=" + (is_path ? absolute(*given) : *given));
    if (is_path) check_log(*given);
  }
  return changes;
}

std::vector<std::string> changed_environment(const std::vector<std::string>& changes) {
  std::vector<std::string> result;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    bool replaced = false;
    for (const std::string& change : changes) {
      const size_t name = change.find('=') + 1;
      if (strncmp(*entry, change.c_str(), name) == 0) replaced = true;
    }
    if (!replaced) result.push_back(*entry);
  }
  result.insert(result.end(), changes.begin(), changes.end());
  return result;
}

int print_library() {
  const std::string library = library_path();
  check_library(library);
  printf("%s\n", library.c_str());
  return 0;
}

int run(const RunOptions& options) {
  const std::string library = library_path();
  const std::vector<std::string> changes = environment_changes(options, library);
  if (!options.force) {
    check_target(options.command[0]);
    check_library(library);
  }
  if (options.dry_run) {
    print(options, changes);
    return 0;
  }
  const std::vector<std::string> environment = changed_environment(changes);
  if (options.watch) {
    return run_watched(options.command, environment,
                       {*options.watch, options.watch_abort, log_of(environment)});
  }
  execvpe(options.command[0].c_str(), as_argv(options.command).data(), as_argv(environment).data());
  const int error = errno;
  throw Error(options.command[0] + ": " + strerror(error), exec_status(error));
}

}  // namespace forksafe::cli
