// SPDX-License-Identifier: Apache-2.0
// What doors_test and openblas_test share: a fixture (fixtures/doors.cpp) to be adopted.
#pragma once

#include <pthread.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

#include "doors/doors.h"
#include "support.h"

/// Forgets what a test case has adopted. All test cases together adopt more than there is room for.
struct Adoptions {
  ~Adoptions() {
    for (int i = 0; i < forksafe::module_count; ++i) {
      forksafe::modules[i].~Module();
      new (&forksafe::modules[i]) forksafe::Module();
    }
    forksafe::module_count = 0;
  }
};

/// A copy of a fixture under a name of its own: an object that nobody has adopted yet. It stays
/// loaded, as an adopted object does.
struct Fixture {
  explicit Fixture(const std::string& name) {
    static const TemporaryDirectory directory;
    static int copies = 0;
    const std::string path = directory.file(name + "-" + std::to_string(getpid()) + "-" +
                                            std::to_string(++copies) + ".so");
    std::filesystem::copy_file(fixture_path(name), path);
    handle = load(path);
    image = image_at(symbol_in(handle, "doors_lock"));
    lock = function_in<int (*)(pthread_mutex_t*)>(handle, "doors_lock");
    unlock = function_in<int (*)(pthread_mutex_t*)>(handle, "doors_unlock");
    first_mutex = function_in<pthread_mutex_t* (*)()>(handle, "doors_first_mutex")();
    second_mutex = function_in<pthread_mutex_t* (*)()>(handle, "doors_second_mutex")();
    condition = function_in<pthread_cond_t* (*)()>(handle, "doors_condition")();
  }

  void** slot(const char* name) const {
    void** result = nullptr;
    image.each_slot([&](const char* slot_name, void** slot) {
      if (strcmp(name, slot_name) == 0) result = slot;
    });
    if (result == nullptr) throw std::runtime_error("the fixture does not import it");
    return result;
  }

  std::vector<void*> all_slots() const {
    std::vector<void*> result;
    image.each_slot([&](const char*, void** slot) { result.push_back(*slot); });
    return result;
  }

  void* handle;
  forksafe::ElfImage image;
  int (*lock)(pthread_mutex_t*);
  int (*unlock)(pthread_mutex_t*);
  pthread_mutex_t* first_mutex;
  pthread_mutex_t* second_mutex;
  pthread_cond_t* condition;
};

inline bool has(const forksafe::AddressSet& set, const void* address) {
  bool found = false;
  set.each([&](const void* a) { found = found || a == address; });
  return found;
}

inline bool is_free(pthread_mutex_t* mutex) {
  if (pthread_mutex_trylock(mutex) != 0) return false;
  pthread_mutex_unlock(mutex);
  return true;
}
