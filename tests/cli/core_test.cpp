// SPDX-License-Identifier: Apache-2.0
// forksafe diagnose --core: cores of the kernel and of gcore, and files that are none.
#include "process/core.h"

#include <elf.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstring>
#include <filesystem>
#include <random>

#include "background.h"
#include "process/process.h"

using namespace forksafe_test;
namespace fs = std::filesystem;

namespace {

/// The same command in `folder`, where the kernel writes its core.
Command in_folder(Command command, const std::string& folder) {
  command.arguments.insert(
      command.arguments.begin(),
      {"/bin/sh", "-c", "cd \"$0\" && ulimit -c unlimited && exec \"$@\"", folder});
  return command;
}

/// Ends the child of a specimen, and returns the path of its core.
std::string core_of_kernel(Background* background, pid_t child, const std::string& folder) {
  const std::string pattern = read_file("/proc/sys/kernel/core_pattern");
  if (pattern != "core\n") skip("the kernel does not write cores into the folder of the process");
  kill(child, SIGABRT);
  background->wait(30);
  const std::string with_id = folder + "/core." + std::to_string(child);
  return fs::exists(with_id) ? with_id : folder + "/core";
}

/// Returns the path of a core that gcore has written. The process continues.
std::string core_of_gcore(pid_t pid, const std::string& folder) {
  const Outcome outcome =
      run_words({installed("gcore"), "-o", folder + "/gcore", std::to_string(pid)});
  INFO(outcome.output);
  const std::string core = folder + "/gcore." + std::to_string(pid);
  REQUIRE(fs::exists(core));
  return core;
}

Diagnosis by_core(const std::string& core) {
  return diagnosis_of(ask({"diagnose", "--json", "--core", core}));
}

/// Waits until a process is found stuck, for at most 20 seconds on a slow machine.
Json live_when_stuck(pid_t pid) {
  for (int i = 0; i < 200; ++i) {
    const Answer answer = ask({"diagnose", "--json", std::to_string(pid)});
    if (answer.status == 1) return answer.json()[0];
    usleep(100000);
  }
  FAIL("it does not get stuck");
  return {};
}

/// Checks that a core gives the same verdict as the live child. `by_kernel`: whose core.
void check_same(const Command& command, bool by_kernel) {
  const TemporaryDirectory folder;
  const Command in_its_folder = in_folder(command, folder.path());
  Background background(in_its_folder);
  const pid_t child = background.ready();
  const Json live = live_when_stuck(child);
  const std::string core = by_kernel ? core_of_kernel(&background, child, folder.path())
                                     : core_of_gcore(child, folder.path());
  const Diagnosis verdict = by_core(core);
  INFO(live.dump(1) << verdict.process.dump(1));
  CHECK(verdict.status == 1);
  for (const char* key : {"pid", "parent", "forked", "stuck", "code", "place", "library", "thread",
                          "guarded", "command"}) {
    INFO(key);
    CHECK(verdict.process[key] == live[key]);
  }
  // The number of team mates is read from the live parent.
  const std::string text = verdict.process["text"];
  CHECK(
      text.rfind("This is a forked child of " + std::to_string(background.pid()) + ". It waits in ",
                 0) == 0);
  // The shell was the program of the parent at first, so its arguments are the child's.
  std::string line = "run the parent under forksafe:  forksafe";
  for (const std::string& word : command.arguments) line += " " + (word.empty() ? "''" : word);
  CHECK(verdict.process["cure"] == line);
  REQUIRE(verdict.process["runtimes"].size() == live["runtimes"].size());
  for (size_t i = 0; i < live["runtimes"].size(); ++i) {
    for (const char* key : {"filepath", "version", "num_threads", "num_threads_from", "workers"}) {
      CHECK(verdict.process["runtimes"][i][key] == live["runtimes"][i][key]);
    }
  }
  REQUIRE(verdict.process["threads"].size() == live["threads"].size());
  for (size_t i = 0; i < live["threads"].size(); ++i) {
    CHECK(verdict.process["threads"][i]["tid"] == live["threads"][i]["tid"]);
    CHECK(verdict.process["threads"][i]["frames"] == live["threads"][i]["frames"]);
  }
}

// A core does not tell how many processors the process may use, so it must say how many threads.
Command omp_child(const std::string& situation) {
  Command command = omp_specimen(situation);
  command.environment["OMP_NUM_THREADS"] = "3";
  return command;
}

Command team() { return omp_child("team"); }

void check_cores(bool by_kernel) {
  check_same(team(), by_kernel);
  check_same(omp_child("critical"), by_kernel);
  Command locked = specimen(blas_by_name("debian"), {"locked"});
  locked.environment["OPENBLAS_NUM_THREADS"] = "1";
  check_same(locked, by_kernel);
}

/// A core of a child that waits for its team, without the rest of the process.
std::string stuck_core(const TemporaryDirectory& folder, const Command& command = team()) {
  Background background(command);
  const pid_t child = background.ready();
  live_when_stuck(child);
  return core_of_gcore(child, folder.path());
}

void check_no_core(const std::string& path, const std::string& part) {
  check_refused(ask({"diagnose", "--core", path}), "core " + path + ": " + part);
}

}  // namespace

TEST_CASE("a core of the kernel has the verdict of the live child", "[core kernel]") {
  check_cores(true);
}

TEST_CASE("a core of gcore has the verdict of the live child", "[core gcore]") {
  check_cores(false);
}

TEST_CASE("the text for a core says that it is one", "[core gcore]") {
  const TemporaryDirectory folder;
  const std::string core = stuck_core(folder);
  const Answer text = ask({"diagnose", "--core", core});
  INFO(text.describe());
  CHECK(text.status == 1);
  CHECK(contains(text.output, " (omp_specimen) was stuck.\n  This is a forked child of "));
  CHECK(contains(text.output, ", the one that is stuck\n"));
  CHECK(contains(text.output, "\n  GOMP_parallel  libgomp.so.1.0.0\n"));
  CHECK(contains(text.output, "\n  main  omp_specimen\n"));
}

// Spinning looks like computing.
TEST_CASE("a core leaves open what one look does not tell", "[core open]") {
  const TemporaryDirectory folder;
  const Diagnosis spun = by_core(stuck_core(folder, specimen(blas_by_name("debian"), {"workers"})));
  INFO(spun.process.dump(1));
  CHECK(spun.status == 2);
  CHECK(spun.process["stuck"].is_null());
  CHECK(spun.process["code"] == "unknown");
  CHECK(contains(spun.process["text"], "It was in exec_blas"));
  CHECK(contains(spun.process["text"], ", where processes get stuck by a fork. But one look does"));
  CHECK(spun.process["cure"].is_null());

  // Whether the process handled a signal that would have woken the thread.
  const Diagnosis lost =
      by_core(stuck_core(folder, specimen(Blas{CREW, "", "", "", false}, {"crew"})));
  INFO(lost.process.dump(1));
  CHECK(lost.status == 2);
  CHECK(lost.process["code"] == "unknown");
  CHECK(contains(lost.process["text"], "It waits in crew_work (libcrew.so) for a thread, and all"));
}

#if defined(__x86_64__)
TEST_CASE("a thread that would go on waits in no system call of a core", "[core open]") {
  const TemporaryDirectory folder;
  Background background(specimen(Blas{CREW, "", "", "", false}, {"changed-word"}));
  const pid_t pid = background.ready();
  const forksafe::cli::Core core(core_of_gcore(pid, folder.path()));
  REQUIRE(core.threads().size() == 3);
  CHECK_FALSE(core.system_call(pid));
  int waiting = 0;
  for (const auto& thread : core.threads()) {
    const auto call = core.system_call(thread.tid);
    if (call && forksafe::cli::futex_wait(call) == forksafe::cli::FutexWait::kPrivate) ++waiting;
  }
  CHECK(waiting == 1);
}
#endif

TEST_CASE("a core of a healthy process has no verdict", "[core healthy]") {
  const Blas blas = blas_by_name("debian");
  const Blas openmp = blas_by_name("debian-openmp");
  const Blas crew = {CREW, "", "", "", false};
  for (const Command& command :
       {specimen(blas, {"idle"}), specimen(blas, {"products", "200"}),
        specimen(openmp, {"products", "200"}), specimen(blas, {"fork-loop", "110"}),
        with_library(specimen(blas, {"child-products", "200"})), omp_specimen("regions-1"),
        with_library(omp_specimen("regions-2")), omp_specimen("sections"),
        specimen(crew, {"crew-of-its-own"}), specimen(crew, {"signalled"})}) {
    const TemporaryDirectory folder;
    Background background(command);
    const pid_t pid = background.ready();
    usleep(50000);
    for (int i = 0; i < 2; ++i) {
      const Diagnosis verdict = by_core(core_of_gcore(pid, folder.path()));
      INFO(command.arguments.back() << verdict.process.dump(1));
      CHECK(verdict.status != 1);
      CHECK(verdict.process["stuck"] != true);
    }
    CHECK_FALSE(background.has_ended());
  }
}

TEST_CASE("a file that is no core is refused", "[core refused]") {
  const TemporaryDirectory folder;
  const std::string file = folder.file("file");
  check_no_core(file, "No such file or directory");
  check_no_core("", "No such file or directory");
  check_no_core(folder.path(), "it is not a regular file");
  check_no_core("/dev/zero", "it is not a regular file");
  REQUIRE(mkfifo(folder.file("fifo").c_str(), 0600) == 0);
  check_no_core(folder.file("fifo"), "it is not a regular file");
  for (const std::string& content : {std::string(), std::string("core"), std::string(1000, '\0')}) {
    write_file(file, content);
    check_no_core(file, "it is not a core");
  }
  write_file(file, "\x28\xb5\x2f\xfd and so on");
  check_no_core(file, "it is compressed");
  check_no_core(forksafe_command(), "it is a program or a library, not a core");
  check_no_core(forksafe_library(), "it is a program or a library, not a core");
  check_refused(ask({"diagnose", "--core", file, "1"}), "takes a process id or --core, not both");
  check_refused(ask({"diagnose", "--core", file, "--children"}), "a core has no children");
  check_refused(ask({"diagnose", "--core"}), "--core needs a value");
}

TEST_CASE("a truncated core and one of another architecture are refused", "[core refused]") {
  const TemporaryDirectory folder;
  const std::string core = stuck_core(folder);
  const std::string whole = read_file(core);
  REQUIRE(by_core(core).status == 1);
  // gcore writes section headers behind the segments, which nobody needs.
  for (const size_t size : {size_t{10}, size_t{63}, size_t{64}, size_t{100}, size_t{4000},
                            whole.size() / 2, whole.size() - 10000}) {
    INFO(size);
    fs::resize_file(core, size);
    check_no_core(core, "it is truncated");
    write_file(core, whole);
  }
  for (const auto& [offset, value] : {std::pair(offsetof(Elf64_Ehdr, e_machine), EM_AARCH64),
                                      std::pair(size_t{EI_CLASS}, int{ELFCLASS32}),
                                      std::pair(size_t{EI_DATA}, int{ELFDATA2MSB})}) {
    std::string other = whole;
    other[offset] = static_cast<char>(value);
    write_file(core, other);
    check_no_core(core, "it is of another architecture (ELF machine ");
  }
}

TEST_CASE("a core whose program was changed or removed is refused", "[core refused]") {
  const TemporaryDirectory folder;
  Command command = team();
  const std::string program = folder.file("program");
  fs::copy_file(command.arguments[0], program);
  command.arguments[0] = program;
  const std::string core = stuck_core(folder, command);
  CHECK(by_core(core).status == 1);
  fs::remove(program);
  check_no_core(core, program + ", which the process had loaded, is missing here");
  fs::copy_file(SPECIMEN, program);
  check_no_core(core, program + ", which the process had loaded, has changed since");
  fs::remove(program);
  fs::create_directory(program);
  check_no_core(core, program + ", which the process had loaded, is no file here");
}

// Each number in the headers and the notes may be wrong.
TEST_CASE("a damaged core is refused, or read within bounds", "[core damaged]") {
  const TemporaryDirectory folder;
  const std::string core = stuck_core(folder);
  const std::string whole = read_file(core);
  Elf64_Ehdr header;
  memcpy(&header, whole.data(), sizeof header);
  std::vector<Elf64_Phdr> segments(header.e_phnum);
  memcpy(segments.data(), whole.data() + header.e_phoff, segments.size() * sizeof segments[0]);
  const auto notes = std::find_if(segments.begin(), segments.end(),
                                  [](const Elf64_Phdr& p) { return p.p_type == PT_NOTE; });
  REQUIRE(notes != segments.end());

  const auto check_bounded = [&](const std::string& what) {
    const Answer answer = ask({"diagnose", "--core", core});
    INFO(what << "\n" << answer.describe());
    CHECK(answer.status <= 2);
    CHECK(std::count(answer.errors.begin(), answer.errors.end(), '\n') <= 1);
  };
  std::mt19937 random(1);
  const auto damage = [&](std::string* bytes, size_t begin, size_t size) {
    const size_t at = begin + random() % size;
    constexpr unsigned char kValues[] = {0x00, 0x01, 0x7f, 0x80, 0xff};
    for (size_t i = at; i < std::min(at + 1 + random() % 8, begin + size); ++i) {
      (*bytes)[i] = static_cast<char>(kValues[random() % 5]);
    }
  };
  for (int i = 0; i < 90; ++i) {
    std::string damaged = whole;
    if (i % 3 == 0) damage(&damaged, 16, sizeof header - 16);
    if (i % 3 == 1) damage(&damaged, header.e_phoff, segments.size() * sizeof segments[0]);
    if (i % 3 == 2) damage(&damaged, notes->p_offset, std::min<size_t>(notes->p_filesz, 8192));
    write_file(core, damaged);
    check_bounded("round " + std::to_string(i));
  }

  // A file of 2^40 bytes, nearly all of them holes, that are all notes.
  write_file(core, whole);
  fs::resize_file(core, uint64_t{1} << 40);
  std::string patched = whole;
  Elf64_Phdr huge = *notes;
  huge.p_filesz = (uint64_t{1} << 40) - huge.p_offset;
  memcpy(patched.data() + header.e_phoff + (notes - segments.begin()) * sizeof huge, &huge,
         sizeof huge);
  write_file(core, patched);
  fs::resize_file(core, uint64_t{1} << 40);
  check_no_core(core, "it is damaged (its notes are too long)");
}
