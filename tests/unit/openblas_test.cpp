// SPDX-License-Identifier: Apache-2.0
// What OpenBLAS's doors see and answer. A fixture stands in for OpenBLAS.
#include <sys/mman.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <memory>
#include <string>
#include <thread>

#include "doors_fixture.h"
#include "runtimes/openblas/allocator.h"
#include "runtimes/openblas/openmp.h"
#include "runtimes/openblas/threads.h"
#include "runtimes/runtime.h"
#include "support.h"

using forksafe::Module;

namespace {

forksafe::Range range_of(const Fixture& fixture, const char* function) {
  const forksafe::Symbol symbol = fixture.image.find(function);
  const auto begin = reinterpret_cast<uintptr_t>(symbol.address);
  return {begin, begin + symbol.size};
}

// A fixture in the place of a build on its own threads.
struct ThreadsBuild : Adoptions {
  std::unique_ptr<forksafe::OpenBlasThreads> blas = std::make_unique<forksafe::OpenBlasThreads>();

  Module* adopt(const Fixture& fixture) {
    blas->module = forksafe::adopt(fixture.image, "a fixture", forksafe::openblas_threads_doors,
                                   blas.get(), false);
    REQUIRE(blas->module != nullptr);
    return blas->module;
  }
};

}  // namespace

TEST_CASE_METHOD(ThreadsBuild, "static mutexes and conditions are noted, others are not",
                 "[openblas]") {
  const Fixture fixture("doors_relro");
  Module* module = adopt(fixture);
  pthread_mutex_t on_the_stack = PTHREAD_MUTEX_INITIALIZER;
  const auto on_the_heap = std::make_unique<pthread_mutex_t>();
  for (pthread_mutex_t* mutex : {&on_the_stack, on_the_heap.get(), fixture.second_mutex}) {
    CHECK(fixture.lock(mutex) == 0);
    CHECK(fixture.unlock(mutex) == 0);
  }
  CHECK(module->mutexes.size() == 1);
  CHECK(has(module->mutexes, fixture.second_mutex));
  CHECK(module->conditions.size() == 0);

  const auto wait = function_in<int (*)()>(fixture.handle, "doors_wait");
  const auto signal = function_in<int (*)()>(fixture.handle, "doors_signal");
  std::thread waiter(wait);
  CHECK(signal() == 0);
  waiter.join();
  CHECK(module->conditions.size() == 1);
  CHECK(has(module->conditions, fixture.condition));
  CHECK_FALSE(module->overflowed);
}

TEST_CASE_METHOD(ThreadsBuild, "threads that a module creates and joins are counted",
                 "[openblas]") {
  const Fixture fixture("doors_lazy");
  adopt(fixture);
  const auto create =
      function_in<int (*)(pthread_t*, void* (*)(void*), void*)>(fixture.handle, "doors_create");
  const auto join = function_in<int (*)(pthread_t)>(fixture.handle, "doors_join");
  pthread_t thread;
  bool ran = false;
  REQUIRE(create(
              &thread,
              [](void* flag) -> void* {
                *static_cast<bool*>(flag) = true;
                return nullptr;
              },
              &ran) == 0);
  CHECK(blas->workers == 1);
  CHECK(join(thread) == 0);
  CHECK(ran);
  CHECK(blas->workers == 0);
}

TEST_CASE_METHOD(ThreadsBuild, "the brief mutex is learnt from the first lock within the allocator",
                 "[openblas]") {
  const Fixture fixture("doors_lazy");
  blas->memory_alloc = range_of(fixture, "doors_lock_in_allocator");
  Module* module = adopt(fixture);

  fixture.lock(fixture.second_mutex);
  CHECK(*module->brief_depth() == 0);
  fixture.unlock(fixture.second_mutex);
  CHECK(blas->brief_mutex == nullptr);

  function_in<int (*)()>(fixture.handle, "doors_lock_in_allocator")();
  CHECK(blas->brief_mutex == fixture.first_mutex);
  CHECK(*module->brief_depth() == 1);
  fixture.unlock(fixture.first_mutex);
  CHECK(*module->brief_depth() == 0);

  fixture.lock(fixture.first_mutex);  // from anywhere now
  CHECK(*module->brief_depth() == 1);
  fixture.lock(fixture.second_mutex);
  CHECK(*module->brief_depth() == 1);
  fixture.unlock(fixture.second_mutex);
  fixture.unlock(fixture.first_mutex);
  CHECK(*module->brief_depth() == 0);
}

TEST_CASE_METHOD(ThreadsBuild,
                 "a mapped buffer is noted when the allocator's lock was given back twice",
                 "[openblas]") {
  const Fixture fixture("doors_relro");
  blas->brief_mutex = fixture.first_mutex;
  blas->alloc_mmap = range_of(fixture, "doors_map");
  blas->version = 326;
  blas->buffers.place();
  adopt(fixture);
  void* buffer = function_in<void* (*)(size_t)>(fixture.handle, "doors_map")(4096);
  REQUIRE(buffer != MAP_FAILED);
  fixture.lock(fixture.first_mutex);
  fixture.unlock(fixture.first_mutex);
  CHECK(blas->buffers.size() == 0);
  fixture.lock(fixture.first_mutex);
  CHECK(blas->buffers.size() == 0);
  fixture.unlock(fixture.first_mutex);
  CHECK(blas->buffers.size() == 1);
  CHECK(has(blas->buffers, buffer));
  munmap(buffer, 4096);
}

TEST_CASE_METHOD(ThreadsBuild, "a mapping that fails is not noted", "[openblas]") {
  const Fixture fixture("doors_relro");
  blas->brief_mutex = fixture.first_mutex;
  blas->alloc_mmap = range_of(fixture, "doors_map");
  blas->version = 326;
  Module* module = adopt(fixture);
  CHECK(function_in<void* (*)(size_t)>(fixture.handle, "doors_map")(0) == MAP_FAILED);
  CHECK(forksafe::allocator_state.fresh_buffer[module->slot].address == nullptr);
}

TEST_CASE_METHOD(ThreadsBuild, "a child has the allocator's buffers empty, and no other mapping",
                 "[openblas]") {
  const Fixture fixture("doors_relro");
  blas->brief_mutex = fixture.first_mutex;
  blas->alloc_mmap = range_of(fixture, "doors_map");
  blas->version = 326;
  Module* module = adopt(fixture);
  const forksafe::Range map_function = blas->alloc_mmap;
  for (const bool scratch : {false, true}) {
    for (const bool from_allocator : {false, true}) {
      CAPTURE(scratch, from_allocator);
      blas->buffers_have_headers = !scratch;
      blas->alloc_mmap = from_allocator ? map_function : forksafe::Range{};
      forksafe::allocator_state.fresh_buffer[module->slot] = {};
      auto* mapped = function_in<char* (*)(size_t)>(fixture.handle, "doors_map")(4096);
      REQUIRE(mapped != MAP_FAILED);
      *mapped = 'x';
      CHECK(run_in_child([&] { return *mapped == '\0' ? "empty" : std::string(mapped, 1); }) ==
            (scratch && from_allocator ? "empty" : "x"));
      CHECK(*mapped == 'x');
      const void* noted = forksafe::allocator_state.fresh_buffer[module->slot].address;
      CHECK(noted == (from_allocator ? mapped : nullptr));
      munmap(mapped, 4096);
    }
  }
  forksafe::allocator_state.fresh_buffer[module->slot] = {};
}

TEST_CASE_METHOD(ThreadsBuild, "doors that are shut answer 0 at once", "[openblas]") {
  const Fixture fixture("doors_relro");
  blas->brief_mutex = fixture.first_mutex;
  Module* module = adopt(fixture);
  pthread_mutex_lock(fixture.first_mutex);

  blas->shut = true;
  CHECK(fixture.lock(fixture.first_mutex) == 0);  // it would wait for ever
  CHECK(*module->brief_depth() == 0);
  CHECK(fixture.lock(fixture.second_mutex) == 0);
  CHECK(is_free(fixture.second_mutex));
  CHECK(fixture.unlock(fixture.first_mutex) == 0);
  CHECK_FALSE(is_free(fixture.first_mutex));
  CHECK(function_in<int (*)(pthread_mutex_t*)>(fixture.handle,
                                               "doors_destroy")(fixture.first_mutex) == 0);
  CHECK(function_in<int (*)()>(fixture.handle, "doors_signal")() == 0);
  CHECK(function_in<int (*)(pthread_cond_t*)>(fixture.handle,
                                              "doors_destroy_condition")(fixture.condition) == 0);
  // pthread_join of the calling thread returns EDEADLK.
  CHECK(function_in<int (*)(pthread_t)>(fixture.handle, "doors_join")(pthread_self()) == 0);
  CHECK(blas->workers == 0);
  CHECK(module->mutexes.size() == 0);
  blas->shut = false;

  pthread_mutex_unlock(fixture.first_mutex);
  CHECK(fixture.lock(fixture.first_mutex) == 0);
  CHECK_FALSE(is_free(fixture.first_mutex));
  CHECK(fixture.unlock(fixture.first_mutex) == 0);
  CHECK(is_free(fixture.first_mutex));
}

TEST_CASE_METHOD(ThreadsBuild, "a child has no workers", "[openblas]") {
  const Fixture fixture("doors_relro");
  int threads = 2;
  forksafe::OpenBlasThreads& copy = forksafe::openblas_threads_copies[0];
  copy.module = adopt(fixture);
  copy.shutdown = [] {};
  copy.cpu_number = &threads;
  copy.workers = 3;
  // In a process of its own: a copy is never taken out of the list.
  CHECK(run_in_child([&] {
          forksafe::openblas_threads_copies.add();
          forksafe::openblas_threads.prepare_last();
          const std::string in_child = run_in_child([&] {
            forksafe::openblas_threads.child_first();
            return std::to_string(copy.workers);
          });
          forksafe::openblas_threads.parent();
          return in_child + " in the child, " + std::to_string(copy.workers) + " in the parent" +
                 (copy.torn ? ", torn" : "");
        }) == "0 in the child, 3 in the parent");
}

TEST_CASE_METHOD(Adoptions, "in a child that could not be made whole, one thread is all there is",
                 "[openblas]") {
  const TemporaryDirectory directory;
  const std::string path = directory.file("openmp_build.so");
  std::filesystem::copy_file(fixture_path("scope_caller"), path);
  void* handle = load(path);
  const auto max_threads = function_in<int (*)()>(handle, "scope_call_max_threads");
  const auto in_parallel = function_in<int (*)()>(handle, "scope_call_in_parallel");
  const auto blas = std::make_unique<forksafe::OpenBlasOpenMp>();
  blas->module = forksafe::adopt(image_at(reinterpret_cast<void*>(max_threads)), "a fixture",
                                 forksafe::openblas_openmp_doors, blas.get(), true);
  REQUIRE(blas->module != nullptr);
  CHECK(max_threads() == 4);
  CHECK(in_parallel() == 3);
  blas->one_thread = true;
  CHECK(max_threads() == 1);
  CHECK(in_parallel() == 1);
}
