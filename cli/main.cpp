// SPDX-License-Identifier: Apache-2.0
// Reads the command line: `forksafe [OPTION...] [--] COMMAND [ARG...]` and three subcommands.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/terminal.h"
#include "base/words.h"
#include "commands/check.h"
#include "commands/diagnose.h"
#include "commands/list.h"
#include "commands/run.h"

namespace forksafe::cli {
namespace {

using Words = std::vector<std::string>;

/// Lays out the help. CLI11's own layout differs between 2.3, 2.4 and 2.6.
class Help : public CLI::FormatterBase {
 public:
  explicit Help(std::string usage) : usage_(std::move(usage)) {}
  std::string make_help(const CLI::App* app, std::string, CLI::AppFormatMode) const override {
    std::string text = app->get_description() + "\n" + usage_ + "\nOptions:\n";
    for (const CLI::Option* option : app->get_options()) text += line_of(*option);
    return text + "\n" + app->get_footer() + "\n";
  }

 private:
  static std::string line_of(const CLI::Option& option) {
    const std::string name =
        option.check_sname("h") ? "-h, --help" : option.get_name() + " " + option.get_type_name();
    return fmt::format("  {:<24}{}\n", name, option.get_description());
  }

  std::string usage_;
};

/// One form of the command line. CLI11 gets only our own words. The words of the command are cut
/// off before, so CLI11 can't take them for our options.
struct Form {
  Form(std::string form_name, const std::string& description, const std::string& usage,
       const std::string& footer)
      : name(std::move(form_name)), app(description) {
    app.formatter(std::make_shared<Help>(usage));
    app.set_help_flag("-h,--help", "print this help");
    app.footer(footer);
    app.allow_extras();
  }

  std::string name;  ///< the subcommand; empty for `forksafe COMMAND`
  CLI::App app;
  Words command;

  std::string prefix() const { return name.empty() ? "" : name + " "; }

  void add_value(const std::string& option, const std::string& type, std::string* value,
                 const std::string& text) {
    app.add_option(option, *value, text)
        ->type_name(type)
        ->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
  }
  void add_flag(const std::string& option, bool* value, const std::string& text) {
    app.add_flag(option, *value, text)->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
  }
  bool given(const std::string& option) const { return app.count(option) > 0; }

  /// Parses our own words. False if they ask for the help, which is printed. Words that are not
  /// options, and unknown options, stay in app.remaining().
  bool parse(Words own);
  void refuse_unknown() const;
  [[noreturn]] void misuse(const std::string& what) const {
    throw Error(prefix() + what + "; see forksafe " + prefix() + "--help");
  }
};

void print(const std::string& text, FILE* stream = stdout) { fputs(text.c_str(), stream); }

bool is_option(const std::string& word) { return word.size() > 1 && word[0] == '-'; }

bool starts_with_digit(const std::string& word) {
  return !word.empty() && word[0] >= '0' && word[0] <= '9';
}

bool Form::parse(Words own) {
  std::reverse(own.begin(), own.end());  // CLI11 reads them from the back
  try {
    app.parse(own);
  } catch (const CLI::CallForHelp&) {
    print(app.help());
    return false;
  } catch (const CLI::ArgumentMismatch& e) {
    const std::string text = e.what();
    misuse(text.substr(0, text.find(':')) + " needs a value");
  } catch (const CLI::ParseError& e) {
    misuse(e.what());
  }
  return true;
}

void Form::refuse_unknown() const {
  for (const std::string& word : app.remaining()) {
    if (is_option(word)) misuse(word + ": unknown option");
  }
}

/// The index of the first word of the command: it is neither an option nor an option's value.
size_t own_words(const CLI::App& app, const Words& words) {
  size_t i = 0;
  while (i < words.size() && words[i] != "--" && is_option(words[i])) {
    const CLI::Option* option = app.get_option_no_throw(words[i]);
    const bool takes_value = option != nullptr && option->get_items_expected_min() > 0;
    ++i;
    if (takes_value && i < words.size() && words[i] != "--") ++i;
  }
  return i;
}

double read_seconds(const Form& form, const std::string& option, const std::string& text) {
  char* end = nullptr;
  const double seconds = strtod(text.c_str(), &end);
  if (end == text.c_str() || *end != '\0' || !std::isfinite(seconds) || seconds <= 0) {
    throw Error(form.prefix() + option + " " + shell_quote(text) +
                ": not a number of seconds above 0");
  }
  return seconds;
}

int wrapper(const Words& words) {
  RunOptions options;
  std::string child_threads, wait_ms, pool, log, watch;
  bool version = false, library = false;
  Form form("", "forksafe: fork() that is safe with BLAS and OpenMP thread pools",
            "Usage: forksafe [OPTION...] [--] COMMAND [ARG...]\n"
            "       forksafe list|check|diagnose [OPTION...] PID\n",
            "Subcommands, each with --help:\n"
            "  list      list the BLAS and OpenMP runtimes of a process or of a command\n"
            "  check     tell whether fork is safe in a process or in a command\n"
            "  diagnose  tell what a stuck process waits for\n"
            "Examples:\n"
            "  forksafe python app.py");
  form.add_value("--child-threads", "N", &child_threads,
                 "threads in children: a number, 'inherit' or 'auto'");
  form.add_value("--wait-ms", "MS", &wait_ms, "longest time that a fork waits for calls in flight");
  form.add_value("--pool", "keep|drop", &pool, "keep OpenBLAS's threads at a fork, or end them");
  form.add_value("--log", "stderr|PATH", &log, "write a log of what the library finds and does");
  form.add_value("--watch", "SECONDS", &watch, "report processes that are stuck for SECONDS");
  form.add_flag("--watch-abort", &options.watch_abort, "end such a process with SIGABRT");
  form.add_flag("--off", &options.off, "preload the library, but switch it off");
  form.add_flag("--dry-run", &options.dry_run, "only print the settings and the command");
  form.add_flag("--force", &options.force, "run COMMAND even if a check fails");
  form.add_flag("--print-library", &library, "print the path of the library");
  form.add_flag("--version", &version, "print the version");

  const size_t own = own_words(form.app, words);
  if (!form.parse(Words(words.begin(), words.begin() + static_cast<ptrdiff_t>(own)))) return 0;
  form.refuse_unknown();
  if (version) {
    print("forksafe " FORKSAFE_VERSION "\n");
    return 0;
  }
  if (library) return print_library();
  if (words.empty()) {
    print(form.app.help(), stderr);
    return 2;
  }
  const size_t command = own + (own < words.size() && words[own] == "--" ? 1 : 0);
  options.command.assign(words.begin() + static_cast<ptrdiff_t>(command), words.end());
  if (options.command.empty()) form.misuse("no command was given");
  if (form.given("--child-threads")) options.child_threads = child_threads;
  if (form.given("--wait-ms")) options.wait_ms = wait_ms;
  if (form.given("--pool")) options.pool = pool;
  if (form.given("--log")) options.log = log;
  if (form.given("--watch")) options.watch = read_seconds(form, "--watch", watch);
  if (options.watch_abort && !options.watch) form.misuse("--watch-abort needs --watch");
  return run(options);
}

/// The common part of the subcommands: a process id, or a command after `--`.
struct Subcommand : Form {
  using Form::Form;
  bool json = false;
  bool takes_command = true;
  std::string instead_of_id;  ///< an option that replaces the process id

  bool parse(const Words& words) {
    add_flag("--json", &json, "print JSON");
    const auto end = std::find(words.begin(), words.end(), "--");
    if (!Form::parse(Words(words.begin(), end))) return false;
    const bool separated = end != words.end();
    if (separated) command.assign(end + 1, words.end());
    const Words ids = app.remaining();
    // Check this before unknown options, which may belong to a command: list python -c CODE. A
    // negative number is a wrong process id.
    if (!separated && !ids.empty() && (!is_option(ids[0]) || starts_with_digit(ids[0].substr(1)))) {
      pid = read_pid(ids);
    }
    refuse_unknown();
    if (separated && !takes_command) misuse("takes a process id, not a command");
    if (separated && !ids.empty()) misuse("takes a process id or a command, not both");
    if (!instead_of_id.empty() && given(instead_of_id)) {
      if (!ids.empty()) misuse("takes a process id or " + instead_of_id + ", not both");
      if (separated) misuse("takes a command or " + instead_of_id + ", not both");
      return true;
    }
    if (separated ? command.empty() : ids.empty()) {
      misuse(takes_command ? "needs a process id, or -- and a command" : "needs a process id");
    }
    if (ids.size() > 1) misuse("takes one process id");
    return true;
  }

  std::optional<pid_t> pid;

 private:
  pid_t read_pid(const Words& ids) const {
    const std::string& word = ids[0];
    pid_t number = 0;
    const auto [rest, error] = std::from_chars(word.data(), word.data() + word.size(), number);
    if (error != std::errc() || rest != word.data() + word.size() || number <= 0) {
      std::string message = prefix() + shell_quote(word) + ": not a process id";
      if (takes_command && !starts_with_digit(word) && !is_option(word)) {
        message += "; for a command: forksafe " + name + " --";
        for (const std::string& w : ids) message += " " + shell_quote(w);
      }
      throw Error(message);
    }
    return number;
  }
};

int list_command(const Words& words) {
  Subcommand form("list", "List the BLAS and OpenMP runtimes that a process has loaded.",
                  "Usage: forksafe list [--json] PID\n"
                  "       forksafe list [--json] --all\n"
                  "       forksafe list [--json] -- COMMAND [ARG...]\n",
                  "Example: forksafe list -- python -c 'import numpy'");
  ListOptions options;
  form.add_flag("--all", &options.all, "list the processes of this user; as root, of all users");
  form.instead_of_id = "--all";
  if (!form.parse(words)) return 0;
  options.json = form.json;
  options.pid = form.pid;
  options.command = form.command;
  return list(options);
}

int check_command(const Words& words) {
  Subcommand form("check", "Tell whether fork is safe in a process as it runs now.",
                  "Usage: forksafe check [OPTION...] PID\n"
                  "       forksafe check [OPTION...] -- COMMAND [ARG...]\n",
                  "COMMAND runs until its first fork, its end or the timeout, and is then ended.\n"
                  "Then forksafe tries forks with the same libraries in processes of their own.\n"
                  "Exit status: 0 if fork is safe, 1 if it is not, 2 if that can't be told.\n"
                  "Example: forksafe check -- python app.py");
  std::string timeout;
  bool no_proof = false;
  form.add_value("--timeout", "S", &timeout, "how many seconds COMMAND may run (default 30)");
  form.add_flag("--no-proof", &no_proof, "only look, do not try forks");
  if (!form.parse(words)) return 0;
  CheckOptions options;
  options.json = form.json;
  options.pid = form.pid;
  options.command = form.command;
  options.prove = !no_proof;
  if (form.given("--timeout")) options.timeout_seconds = read_seconds(form, "--timeout", timeout);
  return check(options);
}

int diagnose_command(const Words& words) {
  Subcommand form("diagnose", "Tell what a stuck process waits for.",
                  "Usage: forksafe diagnose [OPTION...] PID\n"
                  "       forksafe diagnose [--json] --core FILE\n",
                  "Exit status: 0 if no fork problem was found, 1 if one was, 2 if it can't tell.\n"
                  "Example: forksafe diagnose --children 4242");
  form.takes_command = false;
  DiagnoseOptions options;
  std::string core;
  form.add_flag("--children", &options.children, "also diagnose its descendants");
  form.add_value("--core", "FILE", &core, "diagnose the process in a core file");
  form.instead_of_id = "--core";
  if (!form.parse(words)) return 0;
  options.json = form.json;
  if (form.given("--core")) {
    if (options.children) form.misuse("--core: a core has no children");
    options.core = core;
  } else {
    options.pid = *form.pid;
  }
  return diagnose(options);
}

int dispatch(const Words& words) {
  const std::string first = words.empty() ? "" : words[0];
  const Words rest(words.empty() ? words.end() : words.begin() + 1, words.end());
  if (first == "list") return list_command(rest);
  if (first == "check") return check_command(rest);
  if (first == "diagnose") return diagnose_command(rest);
  return wrapper(words);
}

/// Prints one line, even if a name in the message contains line breaks.
void complain(const std::string& what) {
  fprintf(stderr, "forksafe: %s\n", printable(what).c_str());
}

int main_or_throw(int argc, char** argv) {
  const int status = dispatch(Words(argv + (argc > 0 ? 1 : 0), argv + argc));
  if (fflush(stdout) != 0 || ferror(stdout) != 0) {
    throw Error(std::string("standard output: ") + strerror(errno));
  }
  return status;
}

}  // namespace
}  // namespace forksafe::cli

int main(int argc, char** argv) {
  try {
    return forksafe::cli::main_or_throw(argc, argv);
  } catch (const forksafe::cli::Error& e) {
    forksafe::cli::complain(e.what());
    return e.status();
  } catch (const std::exception& e) {
    forksafe::cli::complain(e.what());
    return 2;
  }
}
