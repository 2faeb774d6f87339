// SPDX-License-Identifier: Apache-2.0
// Adoption: the calls of an adopted fixture go through our doors, and reach the same functions as
// without the library.
#include "doors/doors.h"

#include <dlfcn.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <cinttypes>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "doors/brief_mutexes.h"
#include "doors_fixture.h"
#include "elf/loaded_objects.h"
#include "elf/slots.h"
#include "options.h"
#include "support.h"

using forksafe::BriefMutexLock;
using forksafe::BriefMutexUnlock;
using forksafe::DoorSet;
using forksafe::ElfImage;
using forksafe::Module;
using forksafe::Passage;

// A function of the library that this program is linked to (fixtures/scope.cpp).
extern "C" void scope_startup_is_linked();

namespace {

// A door that only passes the call on.
template <typename Function>
struct Open;
template <typename Result, typename... Arguments>
struct Open<Result(Arguments...)> {
  static Result call(const Passage<Result(Arguments...)>& through, Arguments... arguments) {
    return through(arguments...);
  }
};

struct CondWait {
  static constexpr const char* kName = "pthread_cond_wait";
  static int call(const Passage<int(pthread_cond_t*, pthread_mutex_t*)>& through,
                  pthread_cond_t* condition, pthread_mutex_t* mutex) {
    note(through.module, &through.module->conditions, condition);
    return through(condition, mutex);
  }
};
struct CondDestroy : Open<int(pthread_cond_t*)> {
  static constexpr const char* kName = "pthread_cond_destroy";
};
struct MapMemory {
  static constexpr const char* kName = "mmap";
  static inline const void* caller = nullptr;
  static void* call(const Passage<void*(void*, size_t, int, int, int, long)>& through,
                    void* address, size_t length, int protection, int flags, int fd, long offset) {
    caller = through.caller;
    return through(address, length, protection, flags, fd, offset);
  }
};
struct ExecBlasAsync : Open<int(long, void*)> {
  static constexpr const char* kName = "exec_blas_async";
};
using Doors = forksafe::DoorList<BriefMutexLock, BriefMutexUnlock, CondWait, CondDestroy, MapMemory,
                                 ExecBlasAsync>;

struct ExecBlas : Open<int()> {
  static constexpr const char* kName = "exec_blas";
};
struct MaxThreads : Open<int()> {
  static constexpr const char* kName = "omp_get_max_threads";
};
struct InParallel : Open<int()> {
  static constexpr const char* kName = "omp_in_parallel";
};
using ScopeDoors = forksafe::DoorList<ExecBlas, MaxThreads, InParallel>;

constexpr DoorSet kWithoutUnlock = Doors::all().without(Doors::index<BriefMutexUnlock>());

Module* adopt(const Fixture& fixture, DoorSet doors = Doors::all()) {
  return forksafe::adopt(fixture.image, "a fixture", doors, nullptr, false);
}

// "rw-p" and the like: how the page of `address` is mapped.
std::string protection_of(const void* address) {
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    uintptr_t begin, end;
    char protection[5];
    if (sscanf(line.c_str(), "%" SCNxPTR "-%" SCNxPTR " %4s", &begin, &end, protection) == 3 &&
        forksafe::Range{begin, end}.contains(address)) {
      return protection;
    }
  }
  return "";
}

std::string log_to(const TemporaryDirectory& directory) {
  const std::string path = directory.file("log");
  setenv("FORKSAFE_LOG", path.c_str(), 1);
  forksafe::init_options();
  return path;
}

}  // namespace

TEST_CASE_METHOD(Adoptions, "an adopted module's calls come through the doors, however it is bound",
                 "[doors]") {
  const char* name = GENERATE("doors_open", "doors_relro", "doors_lazy");
  CAPTURE(name);
  const Fixture fixture(name);
  const std::vector<void*> before = fixture.all_slots();
  Module* module = adopt(fixture);
  REQUIRE(module != nullptr);
  CHECK(&forksafe::modules[module->slot] == module);
  CHECK(forksafe::module_count == module->slot + 1);

  // Each slot of a door has changed to another function of ours, and no other slot has.
  size_t i = 0;
  fixture.image.each_slot([&](const char* import, void** slot) {
    CAPTURE(import);
    const bool is_door =
        Doors::all().find(import) >= 0 && strcmp(import, ExecBlasAsync::kName) != 0;
    CHECK((*slot != before[i]) == is_door);
    if (is_door) CHECK(image_at(*slot).span().contains(reinterpret_cast<void*>(&forksafe::adopt)));
    ++i;
  });

  CHECK(fixture.lock(fixture.first_mutex) == 0);
  CHECK_FALSE(is_free(fixture.first_mutex));
  CHECK(fixture.unlock(fixture.first_mutex) == 0);
  CHECK(is_free(fixture.first_mutex));
  CHECK(has(module->mutexes, fixture.first_mutex));
  CHECK(module->mutexes.size() == 1);
}

TEST_CASE_METHOD(Adoptions,
                 "the function behind a door is the one that dlsym finds in the global scope",
                 "[doors]") {
  const char* name = GENERATE("doors_open", "doors_relro", "doors_lazy");
  CAPTURE(name);
  const Fixture fixture(name);
  Module* module = adopt(fixture);
  REQUIRE(module != nullptr);
  for (const char* import : {"pthread_mutex_lock", "pthread_mutex_unlock", "pthread_cond_wait",
                             "pthread_cond_destroy", "mmap"}) {
    CAPTURE(import);
    CHECK(module->behind[Doors::all().find(import)] == dlsym(RTLD_DEFAULT, import));
  }
  CHECK(Doors::behind<BriefMutexLock>(*module) == pthread_mutex_lock);
}

TEST_CASE_METHOD(Adoptions, "a door is told which function of its module calls", "[doors]") {
  const Fixture fixture("doors_relro");
  Module* module = adopt(fixture);
  REQUIRE(module != nullptr);
  const forksafe::Symbol map = module->image.find("doors_map");
  const auto begin = reinterpret_cast<uintptr_t>(map.address);
  void* mapped = function_in<void* (*)(size_t)>(fixture.handle, "doors_map")(4096);
  REQUIRE(mapped != MAP_FAILED);
  munmap(mapped, 4096);
  CHECK(forksafe::Range{begin, begin + map.size}.contains(MapMemory::caller));
}

TEST_CASE_METHOD(Adoptions, "a weak reference that no object defines gets no door", "[doors]") {
  const char* name = GENERATE("doors_open", "doors_relro", "doors_lazy");
  CAPTURE(name);
  const Fixture fixture(name);
  Module* module = adopt(fixture);
  REQUIRE(module != nullptr);
  CHECK(Doors::behind<ExecBlasAsync>(*module) == nullptr);
  CHECK_FALSE(function_in<bool (*)()>(fixture.handle, "doors_weak_is_answered")());
}

TEST_CASE_METHOD(Adoptions, "a door that is not wanted is not put in", "[doors]") {
  const Fixture fixture("doors_relro");
  void* before = *fixture.slot("pthread_mutex_unlock");
  Module* module = adopt(fixture, kWithoutUnlock);
  REQUIRE(module != nullptr);
  CHECK(*fixture.slot("pthread_mutex_unlock") == before);
  CHECK(Doors::behind<BriefMutexUnlock>(*module) == nullptr);
  CHECK(Doors::behind<BriefMutexLock>(*module) != nullptr);
}

TEST_CASE_METHOD(Adoptions, "pages that RELRO has closed are closed again", "[doors]") {
  const Fixture fixture("doors_relro");
  void** slot = fixture.slot("pthread_mutex_lock");
  REQUIRE(protection_of(slot) == "r--p");
  REQUIRE(adopt(fixture) != nullptr);
  CHECK(protection_of(slot) == "r--p");
}

TEST_CASE("RELRO closes whole pages, whatever their size", "[doors]") {
  using forksafe::closed_part;
  const forksafe::Range relro = {0x2fd80, 0x52000};
  CHECK(closed_part(relro, 4096).begin == 0x2f000);
  CHECK(closed_part(relro, 4096).end == 0x52000);
  CHECK(closed_part(relro, 16384).begin == 0x2c000);
  CHECK(closed_part(relro, 16384).end == 0x50000);
  CHECK(closed_part(relro, 65536).begin == 0x20000);
  CHECK(closed_part(relro, 65536).end == 0x50000);
  // It ends in the page in which it begins.
  const forksafe::Range within = closed_part({0x13d98, 0x14000}, 65536);
  CHECK_FALSE(within.contains(uintptr_t{0x13f00}));
  CHECK(closed_part({}, 4096).end == 0);
}

TEST_CASE("a page that RELRO does not fill stays open", "[doors]") {
  constexpr size_t kPage = 1 << 20;  // more than any linker aligns the end of RELRO to
  const auto address_of_slot = [](const Fixture& f) { return f.slot("pthread_mutex_lock"); };
  // The image ends within a page of that size, but by chance RELRO may fill one.
  std::vector<Fixture> tries;
  do {
    tries.emplace_back("doors_relro");
  } while (forksafe::closed_part(tries.back().image.relro(), kPage)
               .contains(address_of_slot(tries.back())) &&
           tries.size() < 20);
  const Fixture& fixture = tries.back();
  void** slot = address_of_slot(fixture);
  const forksafe::Range relro = forksafe::closed_part(fixture.image.relro(), forksafe::page_size());
  if (forksafe::page_size() < kPage) {
    // As a kernel with pages of that size has left it.
    REQUIRE(protection_of(slot) == "r--p");
    REQUIRE(mprotect(reinterpret_cast<void*>(relro.begin), relro.end - relro.begin,
                     PROT_READ | PROT_WRITE) == 0);
  }
  static char other;
  CHECK(forksafe::redirect_slots(
      fixture.image,
      [](const char* name) { return strcmp(name, "pthread_mutex_lock") == 0 ? 0 : -1; },
      [](int, void*) -> void* { return &other; }, kPage));
  CHECK(*slot == &other);
  CHECK(protection_of(slot) == "rw-p");
}

TEST_CASE_METHOD(Adoptions, "pages that are writable stay so", "[doors]") {
  const char* name = GENERATE("doors_open", "doors_lazy");
  CAPTURE(name);
  const Fixture fixture(name);
  void** slot = fixture.slot("pthread_cond_destroy");
  REQUIRE(protection_of(slot) == "rw-p");
  REQUIRE(adopt(fixture) != nullptr);
  CHECK(protection_of(slot) == "rw-p");
}

TEST_CASE_METHOD(Adoptions, "a lazily bound slot is resolved in the global scope first",
                 "[doors]") {
  // A decoy that was loaded before defines what the caller's own DT_NEEDED defines too.
  load(fixture_path("scope_decoy"));
  void* handle = load(fixture_path("scope_caller"));
  const auto call_exec_blas = function_in<int (*)()>(handle, "scope_call_exec_blas");
  const auto call_max_threads = function_in<int (*)()>(handle, "scope_call_max_threads");
  const auto call_in_parallel = function_in<int (*)()>(handle, "scope_call_in_parallel");
  const ElfImage image = image_at(reinterpret_cast<void*>(call_exec_blas));
  const auto behind = [&](const char* name) {
    return reinterpret_cast<int (*)()>(forksafe::resolve(image, name))();
  };

  // The functions that we find, before the dynamic linker has bound anything...
  CHECK(behind("exec_blas") == 1);            // the program's, not the caller's own
  CHECK(behind("omp_get_max_threads") == 4);  // its own, not the decoy's
  CHECK(behind("omp_in_parallel") == 3);      // what it needs, not the decoy
  CHECK(forksafe::resolve(image, "nobody_has_this_name") == nullptr);

  Module* module = forksafe::adopt(image, "a fixture", ScopeDoors::all(), nullptr, false);
  REQUIRE(module != nullptr);
  CHECK(call_exec_blas() == 1);
  CHECK(call_max_threads() == 4);
  CHECK(call_in_parallel() == 3);

  // ...are those to which the linker binds.
  const TemporaryDirectory directory;
  const std::string path = directory.file("untouched.so");
  std::filesystem::copy_file(fixture_path("scope_caller"), path);
  void* untouched = load(path);
  CHECK(function_in<int (*)()>(untouched, "scope_call_exec_blas")() == 1);
  CHECK(function_in<int (*)()>(untouched, "scope_call_max_threads")() == 4);
  CHECK(function_in<int (*)()>(untouched, "scope_call_in_parallel")() == 3);
}

TEST_CASE_METHOD(Adoptions, "a thread is inside the brief gate while it holds a brief mutex",
                 "[doors]") {
  const Fixture fixture("doors_relro");
  Module* module = adopt(fixture);
  REQUIRE(module != nullptr);
  forksafe::Gate& gate = module->gates().brief;
  const auto empty = [&] { return gate.wait_empty(0); };

  fixture.lock(fixture.first_mutex);
  CHECK(*module->brief_depth() == 1);
  CHECK_FALSE(empty());
  fixture.lock(fixture.second_mutex);
  CHECK(*module->brief_depth() == 2);
  fixture.unlock(fixture.second_mutex);
  CHECK(*module->brief_depth() == 1);
  fixture.unlock(fixture.first_mutex);
  CHECK(*module->brief_depth() == 0);
  CHECK(empty());

  pthread_mutex_t other = PTHREAD_MUTEX_INITIALIZER;
  fixture.lock(&other);
  CHECK(*module->brief_depth() == 0);
  fixture.unlock(&other);

  // A fork is under way. A thread that comes now waits until the fork is done.
  gate.shut();
  std::atomic<bool> taken{false};
  std::thread thread([&] {
    fixture.lock(fixture.first_mutex);
    taken = true;
    fixture.unlock(fixture.first_mutex);
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(30));
  CHECK_FALSE(taken);
  CHECK(is_free(fixture.first_mutex));
  gate.open();
  thread.join();
  CHECK(taken);
  CHECK(*module->calls_depth() == 0);
}

TEST_CASE_METHOD(Adoptions, "in a child the module's mutexes are free, and others are as they were",
                 "[doors]") {
  const Fixture fixture("doors_relro");
  Module* module = adopt(fixture);
  REQUIRE(module != nullptr);
  pthread_mutex_t other = PTHREAD_MUTEX_INITIALIZER;
  std::atomic<bool> held{false}, go_on{false};
  // Another thread, which the child does not have, holds two mutexes.
  std::thread holder([&] {
    fixture.lock(fixture.first_mutex);
    fixture.lock(&other);
    held = true;
    while (!go_on) std::this_thread::yield();
    fixture.unlock(&other);
    fixture.unlock(fixture.first_mutex);
  });
  // And another waits for a condition.
  std::thread waiter(function_in<int (*)()>(fixture.handle, "doors_wait"));
  while (!held || !has(module->conditions, fixture.condition)) std::this_thread::yield();
  pthread_mutex_lock(fixture.second_mutex);  // it is given back when the waiter waits
  pthread_mutex_unlock(fixture.second_mutex);
  module->gates().brief.shut();

  const std::string outcome = run_in_child([&]() -> std::string {
    if (is_free(fixture.first_mutex)) return "the fixture's mutex is not held";
    forksafe::reset_module_in_child(module);
    if (!is_free(fixture.first_mutex)) return "the fixture's mutex is held still";
    if (is_free(&other)) return "a mutex that is not the module's was reset";
    static const pthread_cond_t initial = PTHREAD_COND_INITIALIZER;
    if (memcmp(fixture.condition, &initial, sizeof initial) != 0) return "somebody waits still";
    if (module->gates().brief.closed()) return "the gate is closed still";
    if (!module->gates().brief.wait_empty(0)) return "somebody is inside";
    fixture.lock(fixture.first_mutex);
    if (*module->brief_depth() != 1) return "the doors don't work";
    fixture.unlock(fixture.first_mutex);
    return "";
  });
  module->gates().brief.open();
  go_on = true;
  holder.join();
  function_in<int (*)()>(fixture.handle, "doors_signal")();
  waiter.join();
  CHECK(outcome == "");
}

TEST_CASE_METHOD(Adoptions, "a module that there is no room for is left as it is and works",
                 "[doors]") {
  const TemporaryDirectory directory;
  const std::string log = directory.file("log");
  // In a child, so that the other tests have room.
  CHECK(run_in_child([&]() -> std::string {
          log_to(directory);
          while (forksafe::module_count < forksafe::kMaxModules) {
            const Fixture fixture("doors_relro");
            Module* module = adopt(fixture);
            if (module == nullptr) return "refused while there is room";
            fixture.lock(fixture.first_mutex);
            fixture.unlock(fixture.first_mutex);
            if (module->mutexes.size() != 1) return "another module's doors";
          }
          const Fixture fixture("doors_lazy");
          const std::vector<void*> before = fixture.all_slots();
          if (adopt(fixture) != nullptr) return "adopted where there is no room";
          if (fixture.all_slots() != before) return "its slots were changed";
          if (forksafe::module_count != forksafe::kMaxModules) return "it was counted";
          if (fixture.lock(fixture.first_mutex) != 0 || is_free(fixture.first_mutex)) {
            return "it does not work";
          }
          fixture.unlock(fixture.first_mutex);
          return "";
        }) == "");
  const std::string text = read_file(log);
  CHECK(text.find("no room for one more module, left as it is: ") != std::string::npos);
  CHECK(text.find("adopted ") != std::string::npos);
}

TEST_CASE_METHOD(Adoptions,
                 "a module whose memory can't be made writable is left as it is and works",
                 "[doors]") {
  const TemporaryDirectory directory;
  const std::string log = directory.file("log");
  const Fixture fixture("doors_relro");
  const Fixture later("doors_open");
  const std::string outcome = run_in_child([&]() -> std::string {
    log_to(directory);
    const int count = forksafe::module_count;
    const std::vector<void*> before = fixture.all_slots();
    if (!forbid_call(SYS_mprotect, 2, PROT_WRITE)) return "no seccomp";
    errno = 4711;
    if (adopt(fixture) != nullptr) return "adopted";
    if (errno != 4711) return "errno was changed";
    if (fixture.all_slots() != before) return "its slots were changed";
    if (forksafe::module_count != count) return "it was counted";
    if (protection_of(fixture.slot("pthread_mutex_lock")) != "r--p") return "its pages are open";
    if (fixture.lock(fixture.first_mutex) != 0 || is_free(fixture.first_mutex)) {
      return "it does not work";
    }
    fixture.unlock(fixture.first_mutex);
    // The next one, which needs no mprotect, gets the place.
    Module* module = adopt(later, kWithoutUnlock);
    if (module == nullptr || module->slot != count) return "no place for the next";
    if (Doors::behind<BriefMutexUnlock>(*module) != nullptr) return "a stale door";
    later.lock(later.first_mutex);
    return has(module->mutexes, later.first_mutex) ? "" : "the next one's doors don't work";
  });
  if (outcome == "no seccomp") {
    WARN("skipped: no seccomp filter can be installed here");
    return;
  }
  CHECK(outcome == "");
  CHECK(read_file(log).find("the GOT can't be written, left as it is: ") != std::string::npos);
}

TEST_CASE("what is pinned stays loaded", "[doors]") {
  const TemporaryDirectory directory;
  const std::string pinned = directory.file("pinned.so"), other = directory.file("other.so");
  std::filesystem::copy_file(fixture_path("symbols_gnu"), pinned);
  std::filesystem::copy_file(fixture_path("symbols_gnu"), other);
  const auto is_loaded = [](const std::string& path) {
    void* handle = dlopen(path.c_str(), RTLD_LAZY | RTLD_NOLOAD);
    if (handle != nullptr) dlclose(handle);
    return handle != nullptr;
  };
  void* first = load(pinned);
  void* second = load(other);
  CHECK(forksafe::pin(image_at(symbol_in(first, "fixture_answer"))));
  dlclose(first);
  dlclose(second);
  CHECK(is_loaded(pinned));
  CHECK_FALSE(is_loaded(other));
}

TEST_CASE("what was loaded at start needs no pin", "[doors]") {
  CHECK(forksafe::pin(image_at(reinterpret_cast<void*>(&scope_startup_is_linked))));
}
