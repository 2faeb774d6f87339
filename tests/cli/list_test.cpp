// SPDX-License-Identifier: Apache-2.0
// forksafe list: compares what it prints for each build with what the build says about itself.
#include <dlfcn.h>
#include <signal.h>
#include <sys/auxv.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>
#include <set>

#include "background.h"

using namespace forksafe_test;
namespace fs = std::filesystem;

namespace {

std::vector<std::string> joined(std::vector<std::string> words, const Command& command) {
  words.insert(words.end(), command.arguments.begin(), command.arguments.end());
  return words;
}

Json list(const std::vector<std::string>& words, const Environment& environment = {}) {
  std::vector<std::string> all = {"list", "--json"};
  all.insert(all.end(), words.begin(), words.end());
  const Answer answer = ask(all, environment);
  INFO(answer.describe());
  REQUIRE(answer.status == 0);
  return answer.json();
}

Json list(pid_t pid) { return list({std::to_string(pid)}); }

/// The entry for that file, also if its path is a link; null if it is not listed.
Json find(const Json& runtimes, const std::string& path) {
  for (const Json& runtime : runtimes) {
    const std::string other = runtime["filepath"].get<std::string>();
    if (fs::canonical(other) == fs::canonical(path)) return runtime;
  }
  return nullptr;
}

Json find_kind(const Json& runtimes, const std::string& internal_api) {
  for (const Json& runtime : runtimes) {
    if (runtime["internal_api"] == internal_api) return runtime;
  }
  return nullptr;
}

/// The answer of openblas_get_config, by Python's ctypes: "OpenBLAS 0.3.21 NO_AFFINITY ... Haswell
/// ...".
std::string config_of(const Blas& blas) {
  Command command;
  command.arguments = {debian_python(), "-c",
                       "import ctypes, sys\n"
                       "f = getattr(ctypes.CDLL(sys.argv[1]), sys.argv[2])\n"
                       "f.restype = ctypes.c_char_p\n"
                       "print(f().decode())\n",
                       blas.path, blas.prefix + "openblas_get_config" + blas.suffix};
  command.environment["LD_LIBRARY_PATH"] = blas.library_path;
  Background background(command);
  REQUIRE(background.wait(30) == 0);
  return background.output();
}

void check_openblas(const char* build) {
  INFO(build);
  const Blas blas = blas_by_name(build);
  for (const int threads : {1, 2, 3}) {
    // The number comes from the environment or from the program. From the environment, a build on
    // its own threads takes no more threads than there are processors.
    for (const bool by_itself : {false, true}) {
      if (!by_itself && !blas.openmp && threads > sysconf(_SC_NPROCESSORS_ONLN)) continue;
      // From 0.3.24 on, a build on OpenMP takes no more threads than it had at its start.
      if (by_itself && blas.openmp && threads > 2 && patch_level(blas) >= 24) continue;
      Command command = specimen(blas, {"idle"});
      const std::string number = std::to_string(threads);
      if (by_itself) {
        command = specimen(blas, {"idle", number});
      } else {
        command.environment["OMP_NUM_THREADS"] = number;
        command.environment["OPENBLAS_NUM_THREADS"] = number;
      }
      Background background(command);
      const Json runtimes = list(background.ready());
      INFO(runtimes.dump(1));
      const Json runtime = find(runtimes, blas.path);
      REQUIRE_FALSE(runtime.is_null());
      CHECK(runtime["num_threads"] == threads);
      CHECK(runtime["num_threads_from"] == "memory");
      CHECK(runtime["user_api"] == "blas");
      CHECK(runtime["internal_api"] == "openblas");
      CHECK(runtime["name"] == "OpenBLAS");
      CHECK(runtime["threading_layer"] == (blas.openmp ? "openmp" : "pthreads"));
      CHECK(runtime["linked"] == "dlopen");
      CHECK(runtime["pid"] == background.pid());
      CHECK(runtime["command"] == Json(command.arguments));
      CHECK(runtime["guarded"] == false);
      CHECK(runtime["one_thread"] == false);
      const std::string config = config_of(blas);
      const std::string version = runtime["version"].get<std::string>();
      CHECK(contains(config, "OpenBLAS " + version + " "));
      if (runtime["architecture"].is_string()) {
        CHECK(contains(config, " " + runtime["architecture"].get<std::string>() + " "));
      }
      const Json openmp = find_kind(runtimes, "openmp");
      if (!blas.openmp) {
        // If the program reduces the number of threads, the workers stay, asleep.
        CHECK(runtime["workers"] == (by_itself ? std::max(threads, 2) : threads) - 1);
        CHECK(runtime["openmp"].is_null());
        continue;
      }
      REQUIRE_FALSE(openmp.is_null());
      CHECK(runtime["openmp"] == openmp["filepath"]);
      CHECK(openmp["name"] == "GNU OpenMP");
      CHECK(openmp["prefix"] == "libgomp");
      CHECK(openmp["version"].get<std::string>().compare(0, 5, "GOMP_") == 0);
      CHECK(openmp["needed_by"] == Json({fs::canonical(blas.path).filename()}));
      CHECK(openmp["workers"] == threads - 1);
    }
  }
}

std::string cell(const std::string& line, size_t column) {
  // Columns are two blanks or more apart.
  size_t begin = 0;
  for (; column > 0; --column) begin = line.find_first_not_of(' ', line.find("  ", begin));
  return line.substr(begin, line.find("  ", begin) - begin);
}

}  // namespace

// ---- each build

TEST_CASE("list names the threads of a library that forksafe does not know",
          "[list other threads]") {
  Background background(specimen(Blas{CREW, "", "", "", false}, {"crew"}));
  const pid_t child = background.ready();
  pid_t parent = 0;
  std::ifstream stat("/proc/" + std::to_string(child) + "/stat");
  std::string skipped;
  stat >> skipped >> skipped >> skipped >> parent;
  const Answer text = ask({"list", std::to_string(parent)});
  INFO(text.describe());
  CHECK(contains(text.output, "2 threads of libcrew.so, which forksafe does not know: " CREW "\n"));
  const Json json = ask({"list", "--json", std::to_string(parent)}).json();
  REQUIRE(json.size() == 1);
  CHECK(json[0]["filepath"] == CREW);
  CHECK(json[0]["workers"] == 2);
  CHECK(json[0]["user_api"].is_null());
}

TEST_CASE("list shows Debian's OpenBLAS on its own threads", "[list debian]") {
  check_openblas("debian");
}
TEST_CASE("list shows Debian's OpenBLAS on OpenMP", "[list debian-openmp]") {
  check_openblas("debian-openmp");
}
TEST_CASE("list shows the OpenBLAS of wheels", "[list wheels]") {
  for (const char* build : {"numpy-1.26", "numpy-2.2", "numpy-2.4", "scipy", "openblas64"}) {
    check_openblas(build);
  }
}

TEST_CASE("list shows BLIS", "[list blis]") {
  for (const char* build : {"blis-openmp", "blis-pthread"}) {
    const Blas blas = blas_by_name(build);
    for (const char* threads : {"2", "3"}) {
      Command command = specimen(blas, {"idle"});
      command.environment["BLIS_NUM_THREADS"] = threads;
      Background background(command);
      const Json runtimes = list(background.ready());
      INFO(runtimes.dump(1));
      const Json runtime = find(runtimes, blas.path);
      REQUIRE_FALSE(runtime.is_null());
      CHECK(runtime["internal_api"] == "blis");
      CHECK(runtime["threading_layer"] == (blas.openmp ? "openmp" : "pthreads"));
      CHECK(runtime["num_threads"] == std::stoi(threads));
      CHECK(runtime["num_threads_from"] == "environment");
      CHECK(runtime["openmp"].is_null() == !blas.openmp);
      CHECK(find_kind(runtimes, "openmp").is_null() == !blas.openmp);
    }
  }
}

TEST_CASE("list shows GNU OpenMP that is loaded at start", "[list openmp]") {
  for (const char* threads : {"2", "3"}) {
    Command command = omp_specimen("team");
    command.environment["OMP_NUM_THREADS"] = threads;
    Background background(command);
    background.ready();
    const Json runtimes = list(background.pid());
    INFO(runtimes.dump(1));
    REQUIRE(runtimes.size() == 1);
    CHECK(runtimes[0]["user_api"] == "openmp");
    CHECK(runtimes[0]["internal_api"] == "openmp");
    CHECK(runtimes[0]["name"] == "GNU OpenMP");
    CHECK(runtimes[0]["num_threads"] == std::stoi(threads));
    CHECK(runtimes[0]["num_threads_from"] == "environment");
    CHECK(runtimes[0]["workers"] == 2);  // its region has three threads
    CHECK(runtimes[0]["linked"] == "at start");
    CHECK(runtimes[0]["needed_by"] == Json({"omp_specimen"}));
    CHECK(runtimes[0]["fork_idle"]["safe"] == false);
  }
}

TEST_CASE("list shows LLVM's OpenMP if it replaces GNU's", "[list llvm]") {
  const std::string llvm = multiarch_folder() + "/libomp.so.5";
  if (!fs::exists(llvm)) skip("not installed: libomp.so.5");
  const Blas blas = blas_by_name("debian-openmp");
  Command command = specimen(blas, {"idle"});
  command.environment["LD_PRELOAD"] = forksafe_library() + ":" + llvm;
  command.environment["KMP_WARNINGS"] = "0";
  Background background(command);
  const Json runtimes = list(background.ready());
  INFO(runtimes.dump(1));
  const Json openmp = find(runtimes, llvm);
  REQUIRE_FALSE(openmp.is_null());
  CHECK(openmp["name"] == "LLVM's OpenMP");
  CHECK(openmp["linked"] == "preload");
  CHECK(openmp["fork_idle"]["safe"] == true);
  CHECK(openmp["guarded"] == false);
  const Json runtime = find(runtimes, blas.path);
  REQUIRE_FALSE(runtime.is_null());
  // The calls go to it, although the file names libgomp.
  CHECK(runtime["openmp"] == openmp["filepath"]);
  CHECK(runtime["guarded"] == true);
  const Answer table = ask({"list", std::to_string(background.pid())});
  INFO(table.describe());
  CHECK(contains(table.output,
                 "OpenBLAS 0.3." + std::to_string(patch_level(blas)) + " on libomp.so.5"));
  CHECK(contains(table.output, "not needed"));
}

TEST_CASE("list shows that the fork handlers of Intel's and LLVM's OpenMP are off", "[list kmp]") {
  std::vector<std::string> runtimes = {intel_openmp()};
  const std::string llvm = multiarch_folder() + "/libomp.so.5";
  if (fs::exists(llvm)) runtimes.push_back(llvm);
  for (const std::string& path : runtimes) {
    const auto listed = [&](const std::string& by_program, const std::string& by_user) {
      Command command = region_specimen(path, by_program);
      if (!by_user.empty()) command.environment["KMP_INIT_AT_FORK"] = by_user;
      Background background(command);
      background.ready();
      const std::string pid = std::to_string(background.pid());
      return std::pair(find(list(background.pid()), path), ask({"list", pid}).output);
    };
    // Values that the runtime takes for "no", and values that only look like it.
    for (const char* no : {"FALSE", "0", "f", "Off", "of", ".f.", "no", "disabled"}) {
      INFO(path << " " << no);
      const auto [runtime, text] = listed(no, "");
      CHECK(runtime["fork_idle"]["safe"] == false);
      CHECK(runtime["fork_idle"]["text"] ==
            "a child that computes hangs: KMP_INIT_AT_FORK is " + std::string(no));
      CHECK(runtime["fork_in_flight"]["safe"] == false);
      CHECK(contains(text, "\nKMP_INIT_AT_FORK is " + std::string(no) + ", so the "));
      CHECK(contains(text, ". Set it to TRUE, as forksafe COMMAND does.\n"));
    }
    for (const char* yes : {"TRUE", "1", "on", "fx", "d", "o", ""}) {
      INFO(path << " " << yes);
      const auto [runtime, text] = listed(yes, "");
      CHECK(runtime["fork_idle"]["safe"] == true);
      CHECK_FALSE(contains(text, "KMP_INIT_AT_FORK"));
    }
    // forksafe does not change a value that the user has set.
    CHECK(contains(listed("", "FALSE").second,
                   ". Set it to TRUE: forksafe COMMAND does not change a value that is set.\n"));
    CHECK(listed("FALSE", "TRUE").first["fork_idle"]["safe"] == true);
    CHECK(contains(listed("!FALSE", "TRUE").second,
                   ". The program itself sets it: set it to TRUE there.\n"));
  }
}

TEST_CASE("list shows whether a runtime came at start, by dlopen or by a preload",
          "[list linked]") {
  const Blas blas = blas_by_name("debian");
  const auto linked = [&](const Command& command) {
    Background background(command);
    return find(list(background.ready()), blas.path)["linked"];
  };
  CHECK(linked(specimen(blas, {"idle"})) == "dlopen");
  Command preloaded = specimen({"idle"});
  preloaded.environment["LD_PRELOAD"] = blas.path;
  CHECK(linked(preloaded) == "preload");
  // "at start" is tested with GNU OpenMP above.
  Command python;
  python.arguments = {debian_python(), "-c",
                      "import ctypes, os, sys, time\n"
                      "ctypes.CDLL(sys.argv[1])\n"
                      "print('ready', os.getpid(), flush=True)\n"
                      "time.sleep(600)\n",
                      blas.path};
  CHECK(linked(python) == "dlopen");
}

TEST_CASE("list shows GNU OpenMP that is linked into a program", "[list linked in]") {
  for (const bool exported : {false, true}) {
    for (const bool guard : {false, true}) {
      // The library cures what is exported: that child would end.
      const bool cured = exported && guard;
      Command command = static_omp_specimen(cured ? "regions-2" : "team", exported);
      if (guard) command = with_library(command);
      const std::string program = static_omp_specimen("team", exported).arguments[0];
      Background background(command);
      background.ready();
      const Json runtimes = list(background.pid());
      INFO(runtimes.dump(1));
      REQUIRE(runtimes.size() == 1);
      CHECK(runtimes[0]["prefix"] == "libgomp");
      CHECK(runtimes[0]["filepath"] == program);
      CHECK(runtimes[0]["linked"] == "static");
      CHECK(runtimes[0]["workers"] == (cured ? 1 : 2));
      CHECK(runtimes[0]["guarded"] == cured);
      CHECK(runtimes[0]["named_by"] == (exported ? "dynamic symbols" : "symbol table"));
      CHECK(runtimes[0]["fork_idle"]["safe"] == false);
      const Answer text = ask({"list", std::to_string(background.pid())});
      const std::string name = program.substr(program.rfind('/') + 1);
      CHECK(contains(text.output, "\nGNU OpenMP, linked into " + name + "  "));
      CHECK(contains(text.output,
                     "\nGNU OpenMP is linked into " + name +
                         (exported ? ", as its dynamic symbols tell.\n"
                                   : ", as its symbol table tells. forksafe leaves it alone: link "
                                     "it to libgomp.so instead.\n")));
    }
  }
}

TEST_CASE("list shows a runtime that only a debug file names", "[list linked in]") {
  const TemporaryDirectory folder;
  const std::string program = folder.file("omp_static");
  const auto run_tool = [](const std::vector<std::string>& words) {
    const Outcome outcome = run_words(words);
    INFO(outcome.describe());
    REQUIRE(outcome.succeeded());
  };
  Command command = static_omp_specimen("team", false);
  const std::string objcopy = installed("objcopy");
  run_tool({objcopy, "--only-keep-debug", command.arguments[0], program + ".debug"});
  run_tool({objcopy, "--strip-all", "--add-gnu-debuglink=" + program + ".debug",
            command.arguments[0], program});
  command.arguments[0] = program;
  const auto look = [&] {
    Background background(command);
    background.ready();
    return list(background.pid());
  };
  Json runtimes = look();
  INFO(runtimes.dump(1));
  REQUIRE(runtimes.size() == 1);
  CHECK(runtimes[0]["prefix"] == "libgomp");
  CHECK(runtimes[0]["named_by"] == "debug file");
  CHECK(runtimes[0]["workers"] == 2);

  // The debug file of another program.
  run_tool({objcopy, "--only-keep-debug", OMP_SPECIMEN, program + ".debug"});
  runtimes = look();
  INFO(runtimes.dump(1));
  REQUIRE(runtimes.size() == 1);
  CHECK(runtimes[0]["user_api"].is_null());  // threads of its own
  CHECK(runtimes[0]["workers"] == 2);
}

TEST_CASE("list and check show OpenBLAS that is linked in", "[list linked in]") {
  const Command command = static_blas_specimen();
  Background background(command);
  background.ready();
  const Json runtimes = list(background.pid());
  INFO(runtimes.dump(1));
  REQUIRE(runtimes.size() == 1);
  CHECK(runtimes[0]["prefix"] == "libopenblas");
  CHECK(runtimes[0]["linked"] == "static");
  CHECK(runtimes[0]["named_by"] == "symbol table");
  CHECK(runtimes[0]["threading_layer"] == "pthreads");
  CHECK(runtimes[0]["workers"] == 1);
  CHECK(runtimes[0]["fork_in_flight"]["safe"] == false);
  const Answer text = ask({"list", std::to_string(background.pid())});
  INFO(text.describe());
  CHECK(contains(text.output,
                 "\nOpenBLAS is linked into libblas_inside.so, as its symbol table tells. forksafe "
                 "leaves it alone: link it to libopenblas.so instead.\n"));
  const Answer check = ask({"check", std::to_string(background.pid())});
  INFO(check.describe());
  CHECK(check.status == 1);
  CHECK(contains(check.output,
                 "forksafe can't cure it: OpenBLAS is linked into libblas_inside.so: link it to "
                 "libopenblas.so instead.\n"));
}

// ---- guarded

TEST_CASE("list shows runtimes as guarded under forksafe, and not under FORKSAFE=0",
          "[list guarded]") {
  for (const char* build : {"debian", "debian-openmp", "numpy-2.2", "openblas64"}) {
    INFO(build);
    const Blas blas = blas_by_name(build);
    const auto check_guarded = [&](Command command, bool guarded) {
      Background background(command);
      const Json runtimes = list(background.ready());
      INFO(runtimes.dump(1));
      for (const Json& runtime : runtimes) CHECK(runtime["guarded"] == guarded);
      // A door of libforksafe.so is not taken for an OpenMP runtime.
      const Json openmp = find_kind(runtimes, "openmp");
      CHECK(find(runtimes, blas.path)["openmp"] == (blas.openmp ? openmp["filepath"] : Json()));
      const Answer answer = ask({"list", std::to_string(background.pid())});
      INFO(answer.describe());
      const std::vector<std::string> lines = lines_of(answer.output);
      REQUIRE(lines.size() == 2 + runtimes.size());
      CHECK(lines[0] == "process " + std::to_string(background.pid()) + " (specimen)");
      CHECK(cell(lines[1], 6) == "GUARDED");
      for (size_t i = 2; i < lines.size(); ++i) {
        CHECK(cell(lines[i], 6) == (guarded ? "yes" : "no"));
      }
    };
    Command command = specimen(blas, {"idle"});
    check_guarded(command, false);
    check_guarded(with_library(command), true);
    command.environment["FORKSAFE"] = "0";
    check_guarded(with_library(command), false);
  }
}

TEST_CASE("list shows a child that has one thread", "[list one thread]") {
  const Blas blas = blas_by_name("debian-openmp");
  Command command = with_library(specimen(blas, {"fork-in-flight", "2500"}));
  command.environment["FORKSAFE_WAIT_MS"] = "20";
  Background background(command);
  const pid_t child = background.ready();
  usleep(300000);  // the child is in its own call
  const Json in_child = find(list(child), blas.path);
  INFO(in_child.dump(1) << background.output() << background.errors());
  CHECK(in_child["one_thread"] == true);
  CHECK(in_child["guarded"] == true);
  const Answer answer = ask({"list", std::to_string(child)});
  INFO(answer.describe());
  CHECK(contains(answer.output, "  one thread  "));
  const Json in_parent = find(list(background.pid()), blas.path);
  CHECK(in_parent["one_thread"] == false);
  CHECK(in_parent["degraded_forks"] == 1);
}

// ---- the formats

TEST_CASE("list has the keys and values of threadpoolctl", "[list threadpoolctl]") {
  const std::string python = installed("python3");
  if (!run_words({python, "-c", "import threadpoolctl, numpy"}).succeeded()) {
    skip("Python has no threadpoolctl and numpy");
  }
  Command command;
  command.arguments = {python, "-c",
                       "import json, os, sys, time\n"
                       "import numpy, threadpoolctl\n"
                       "a = numpy.ones((300, 300)); a @ a\n"
                       "json.dump(threadpoolctl.threadpool_info(), sys.stderr)\n"
                       "sys.stderr.flush()\n"
                       "print('ready', os.getpid(), flush=True)\n"
                       "time.sleep(600)\n"};
  command.environment["OPENBLAS_NUM_THREADS"] = "3";
  command.environment["OMP_NUM_THREADS"] = "3";
  Background background(command);
  const Json ours = list(background.ready());
  const Json theirs = Json::parse(background.errors());
  INFO(ours.dump(1) << theirs.dump(1));
  REQUIRE_FALSE(theirs.empty());
  CHECK(ours.size() == theirs.size());
  for (const Json& expected : theirs) {
    const Json runtime = find(ours, expected["filepath"].get<std::string>());
    REQUIRE_FALSE(runtime.is_null());
    for (const auto& [key, value] : expected.items()) {
      INFO(key);
      // threadpoolctl does not know the version of an OpenMP runtime.
      if (key == "version" && value.is_null()) continue;
      CHECK(runtime[key] == value);
    }
  }
}

TEST_CASE("list prints a table or JSON", "[list formats]") {
  const Blas blas = blas_by_name("debian-openmp");
  Background background(specimen(blas, {"idle"}));
  const std::string pid = std::to_string(background.ready());
  const Json runtimes = list(background.pid());
  std::set<std::string> blas_keys, openmp_keys;
  for (const Json& runtime : runtimes) {
    for (const auto& [key, value] : runtime.items()) {
      (runtime["user_api"] == "blas" ? blas_keys : openmp_keys).insert(key);
    }
  }
  for (const char* key :
       {"user_api", "internal_api", "num_threads", "prefix", "filepath", "version"}) {
    CHECK(blas_keys.count(key) == 1);
    CHECK(openmp_keys.count(key) == 1);
  }
  CHECK(blas_keys.count("threading_layer") == 1);
  CHECK(blas_keys.count("architecture") == 1);
  CHECK(openmp_keys.count("architecture") == 0);

  const Answer answer = ask({"list", pid}, {{"TERM", "xterm"}});
  INFO(answer.describe());
  CHECK(answer.errors.empty());
  CHECK_FALSE(contains(answer.output, "\x1b"));
  for (const char* part : {"RUNTIME", "THREADS", "WORKERS", "LINKED", "FORK IDLE", "FORK IN FLIGHT",
                           "GUARDED", "PATH", "child hangs"}) {
    CHECK(contains(answer.output, part));
  }
  const std::vector<std::string> words = {forksafe_command(), "list", pid};
  CHECK(contains(on_terminal(words, {{"TERM", "xterm"}, {"NO_COLOR", ""}}),
                 "\x1b[31mchild hangs\x1b[0m"));
  CHECK_FALSE(contains(on_terminal(words, {{"TERM", "xterm"}, {"NO_COLOR", "1"}}), "\x1b"));

  Background nothing(specimen({"idle"}));
  const std::string other = std::to_string(nothing.ready());
  CHECK(ask({"list", other}).output ==
        "process " + other +
            " (specimen) has loaded no BLAS or OpenMP runtime that forksafe knows\n");
  CHECK(list(nothing.pid()) == Json::array());
}

// ---- processes out of the ordinary

TEST_CASE("a process can't make list read any number of arguments", "[list arguments]") {
  Background background(specimen({"long-arguments"}));
  const std::string pid = std::to_string(background.ready());
  if (contains(background.output(), "refused")) skip("the kernel does not take other arguments");
  const Answer answer = ask({"list", pid});
  INFO(answer.describe());
  CHECK(answer.status == 0);
  rusage used = {};
  REQUIRE(getrusage(RUSAGE_CHILDREN, &used) == 0);
  CHECK(used.ru_maxrss < 300 * 1024);  // KiB
}

// As on s390x and ppc64le.
TEST_CASE("list shows a program whose loader is a file with the name ld64.so", "[list loader]") {
  Dl_info loader = {};
  REQUIRE(dladdr(reinterpret_cast<void*>(getauxval(AT_BASE)), &loader) != 0);
  const TemporaryDirectory folder;
  std::string program = read_file(OMP_SPECIMEN);
  const std::string path = loader.dli_fname;
  const size_t at = program.find(path + '\0');
  if (at == std::string::npos) skip("the program has another loader than this one");
  std::string other = "ld64.so.2";
  other.resize(path.size(), '\0');
  write_file(folder.file("program"), program.replace(at, path.size(), other), 0755);
  fs::copy_file(path, folder.file("ld64.so.2"));
  Command renamed;
  renamed.arguments = {"sh", "-c", "cd \"$1\" && exec ./program team", "sh", folder.path()};
  // The loader as a program.
  Command as_program;
  as_program.arguments = {folder.file("ld64.so.2"), OMP_SPECIMEN, "team"};
  for (const Command& command : {renamed, as_program}) {
    Background background(command);
    const std::string child = std::to_string(background.ready());
    const Json runtimes = list(background.pid());
    INFO(runtimes.dump(1));
    REQUIRE(runtimes.size() == 1);
    CHECK(runtimes[0]["name"] == "GNU OpenMP");
    usleep(200000);
    const Diagnosis verdict = diagnosis_of(ask({"diagnose", "--json", child}));
    CHECK(verdict.at("code") == "gnu-openmp-team");
  }
}

// ---- a command

TEST_CASE("list -- COMMAND shows what the command has loaded at its end", "[list command]") {
  const Blas blas = blas_by_name("debian");
  const Command command = specimen(blas, {"once", "3"});
  const Environment environment(command.environment.begin(), command.environment.end());
  const Answer answer = ask(joined({"list", "--json", "--"}, command), environment);
  INFO(answer.describe());
  CHECK(answer.status == 0);
  // The output of the command is not in the JSON.
  CHECK(answer.errors == "once\n");
  const Json runtimes = answer.json();
  REQUIRE(runtimes.size() == 1);
  CHECK(runtimes[0]["num_threads"] == 3);
  CHECK(runtimes[0]["linked"] == "dlopen");
  CHECK(runtimes[0]["guarded"] == false);
  CHECK(runtimes[0]["command"] == Json(command.arguments));
  CHECK(kill(runtimes[0]["pid"].get<pid_t>(), 0) != 0);

  // The same under forksafe, in a shell, beside another program.
  std::string script = "echo first; " + forksafe_command();
  for (const std::string& word : command.arguments) {
    script += word.empty() ? " ''" : " '" + word + "'";
  }
  const Answer nested = ask({"list", "--json", "--", "sh", "-c", script + "; exit 0"}, environment);
  INFO(nested.describe());
  CHECK(nested.status == 0);
  CHECK(nested.errors == "first\nonce\n");
  REQUIRE(nested.json().size() == 1);
  CHECK(nested.json()[0]["guarded"] == true);
}

TEST_CASE("list -- COMMAND shows the runtimes of Python in a shell", "[list command]") {
  const Blas blas = blas_by_name("debian");
  const std::string python = debian_python();
  const Answer answer = ask(
      {"list", "--json", "--", "sh", "-c",
       "'" + python + "' -c 'import ctypes; ctypes.CDLL(\"" + blas.path + "\"); print(42)'; :"});
  INFO(answer.describe());
  CHECK(answer.status == 0);
  CHECK(answer.errors == "42\n");
  const Json runtimes = answer.json();
  REQUIRE(runtimes.size() == 1);
  CHECK(runtimes[0]["command"][0] == python);
}

TEST_CASE("list -- COMMAND tells how the command ended", "[list command]") {
  const std::string nothing = "the command loads no BLAS or OpenMP runtime that forksafe knows\n";
  const Answer good = ask({"list", "--", "true"});
  CHECK(good.status == 0);
  CHECK(good.output == nothing);
  CHECK(good.errors.empty());
  CHECK(ask({"list", "--json", "--", "true"}).json() == Json::array());

  const Answer failed = ask({"list", "--", "sh", "-c", "exit 7"});
  CHECK(failed.status == 0);
  CHECK(failed.output == nothing);
  CHECK(failed.errors == "forksafe: list: the command ended with status 7\n");

  const Answer killed = ask({"list", "--", "sh", "-c", "kill -TERM $$"});
  CHECK(killed.status == 0);
  CHECK(killed.output == nothing);
  CHECK(killed.errors == "forksafe: list: the command was ended by signal 15\n");

  const Answer missing = ask({"list", "--", "forksafe-no-such-program"});
  CHECK(missing.status == 127);
  CHECK(missing.output.empty());
  CHECK(missing.errors == "forksafe: forksafe-no-such-program: no such command in PATH\n");
  CHECK(ask({"list", "--", "/dev"}).status == 126);
}

TEST_CASE("list -- COMMAND does not change signals and children of the command", "[list command]") {
  // Signal handlers run, a stopped child continues, and a child's status arrives.
  const Answer answer = ask({"list", "--", "sh", "-c",
                             "trap 'echo got USR1' USR1; kill -USR1 $$; "
                             "sleep 0.3 & kill -STOP $!; kill -CONT $!; wait $!; echo waited $?; "
                             "sh -c 'kill -TERM $$'; echo child $?"});
  INFO(answer.describe());
  CHECK(answer.status == 0);
  CHECK(contains(answer.errors, "got USR1\nwaited 0\n"));
  CHECK(contains(answer.errors, "child 143\n"));
}

// ---- all processes

TEST_CASE("list --all tells who runs unguarded", "[list all]") {
  const Blas blas = blas_by_name("debian");
  Background unguarded(specimen(blas, {"idle"}));
  Background guarded(with_library(specimen(blas, {"idle"})));
  Command off_command = with_library(specimen(blas, {"idle"}));
  off_command.environment["FORKSAFE"] = "0";
  Background off(off_command);
  Background without_runtime(specimen({"idle"}));
  const struct {
    pid_t pid;
    std::string guarded;
    size_t runtimes;
  } expected[] = {{unguarded.ready(), "no", 1},
                  {guarded.ready(), "yes", 1},
                  {off.ready(), "no", 1},
                  {without_runtime.ready(), "not needed", 0}};

  const Json all = list({"--all"});
  const Answer text = ask({"list", "--all"});
  INFO(text.describe());
  CHECK(text.status == 0);
  for (const auto& e : expected) {
    INFO(e.pid);
    const auto found = std::find_if(all.begin(), all.end(),
                                    [&](const Json& entry) { return entry["pid"] == e.pid; });
    REQUIRE(found != all.end());
    CHECK((*found)["name"] == "specimen");
    CHECK((*found)["guarded"] == e.guarded);
    CHECK((*found)["threads"] == (e.runtimes == 0 ? 1 : 2));
    CHECK((*found)["runtimes"].size() == e.runtimes);
    int lines = 0;
    for (const std::string& line : lines_of(text.output)) {
      if (cell(line, 0) != std::to_string(e.pid)) continue;
      ++lines;
      CHECK(cell(line, 2) == "specimen");
      CHECK(cell(line, 3) == e.guarded);
      CHECK(cell(line, 4) == (e.runtimes == 0 ? "1" : "2"));
      CHECK(cell(line, 5).substr(0, 8) == (e.runtimes == 0 ? "-" : "OpenBLAS"));
    }
    CHECK(lines == 1);
  }
}

TEST_CASE("list --all shows each of many processes once", "[list all]") {
  Command command;
  command.arguments = {"sh", "-c",
                       "i=0; while [ $i -lt 200 ]; do i=$((i + 1)); sleep 600 & echo $!; done; "
                       "echo ready $$; wait"};
  Background background(command);
  background.ready();
  std::set<pid_t> started;
  for (const std::string& line : lines_of(background.output())) {
    if (line.rfind("ready", 0) != 0) started.insert(std::stoi(line));
  }
  REQUIRE(started.size() == 200);
  std::multiset<pid_t> listed;
  for (const Json& entry : list({"--all"})) listed.insert(entry["pid"].get<pid_t>());
  for (const pid_t pid : started) CHECK(listed.count(pid) == 1);
}
