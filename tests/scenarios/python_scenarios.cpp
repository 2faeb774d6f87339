// SPDX-License-Identifier: Apache-2.0
// Python with numpy: os.fork in the numpy wheel while a thread is inside "a @ a"; and
// multiprocessing with Debian's numpy on the OpenMP build of OpenBLAS, also with the program of
// ObsPy's notes on parallel processing.
#include <catch2/catch.hpp>
#include <filesystem>

#include "setting.h"

using namespace forksafe_test;

namespace {

Command python(const std::string& file, const std::vector<std::string>& arguments,
               const std::string& interpreter = debian_python()) {
  Command command;
  command.arguments = {interpreter, script(file)};
  command.arguments.insert(command.arguments.end(), arguments.begin(), arguments.end());
  command.environment["PYTHONUNBUFFERED"] = "1";
  // Python 3.12 and later warn at a fork in a process with threads. The warning would come between
  // the dots that are counted.
  command.environment["PYTHONWARNINGS"] = "ignore::DeprecationWarning";
  return command;
}

// The folder of a numpy that Debian's Python can load. scripts/test.sh fetches it for Python 3.11,
// scripts/distros.sh for other versions.
std::string numpy_wheel() {
  const std::string version = std::filesystem::canonical(debian_python()).filename();
  const std::string folder = version == "python3.11" ? "numpy-2.2" : "numpy-" + version;
  return std::filesystem::path(in_wheels(folder + "/numpy")).parent_path();
}

// Proves detrend.py. Without the library its children hang each time, in their first call.
void prove_notes_program(Command command) {
  command.environment["LD_LIBRARY_PATH"] = blas_by_name("debian-openmp").library_path;
  const Outcome without = expect_trouble(command);
  REQUIRE_FALSE(without.stuck.empty());
  for (const std::string& verdict : emulated() ? std::vector<std::string>() : without.stuck) {
    CHECK(verdict.find("child: gnu-openmp-team, GOMP_parallel (libgomp.so.1") == 0);
  }
  expect_success(command, 50);
}

}  // namespace

TEST_CASE("numpy wheel: os.fork while a thread is inside a @ a") {
  Command command = python("fork_in_flight.py", {"100"});
  command.environment["PYTHONPATH"] = numpy_wheel();
  prove(command, command, 100);
}

TEST_CASE("Debian's numpy on OpenMP: multiprocessing.Pool after the parent has used BLAS") {
  Command command = python("pool.py", {"100"});
  command.environment["LD_LIBRARY_PATH"] = blas_by_name("debian-openmp").library_path;
  prove(command, command, 100);
}

TEST_CASE("the notes' program, ObsPy's detrend in numpy alone") {
  prove_notes_program(python("detrend.py", {"50"}));
}

TEST_CASE("the notes' program with ObsPy") {
  prove_notes_program(python("detrend.py", {"50", "obspy"}, obspy_python()));
}
