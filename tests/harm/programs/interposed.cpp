// SPDX-License-Identifier: Apache-2.0
// Registers handlers and forks under another library that interposes both (see interposer.cpp).
// That library stands in front of forksafe's or behind it, and sees each call once.
#include "harm.h"

namespace {

constexpr int kForks = 200;

int prepared = 0;
void prepare() { ++prepared; }

template <typename T>
T* of_interposer(const char* name) {
  void* address = dlsym(RTLD_DEFAULT, name);
  harm::expect(address != nullptr, "the interposer is preloaded");
  return static_cast<T*>(address);
}

}  // namespace

int main(int argc, char** argv) {
  harm::begin(argc, argv, 60, 10L * kForks);
  harm::load_gnu_openmp();
  *of_interposer<void*>("interposer_counts_handler") = reinterpret_cast<void*>(prepare);
  const int* const forks = of_interposer<int>("interposer_forks");
  const int* const registrations = of_interposer<int>("interposer_registrations");
  const int before = *forks;
  for (int i = 0; i < 3; ++i)
    harm::expect(pthread_atfork(prepare, nullptr, nullptr) == 0, "atfork");
  harm::say("3 registrations, the other library saw %d", *registrations);
  for (int i = 0; i < kForks * harm::times; ++i) {
    const pid_t child = harm::bounded_fork();
    if (child == 0) {
      harm::fork_once();
      _exit(*forks == before + i + 2 ? 0 : 1);
    }
    const int status = harm::reap(child);
    harm::expect(status == 0, "the other library saw each fork of the child");
  }
  harm::expect(*forks == before + kForks * harm::times, "the other library saw each fork once");
  harm::expect(prepared == 3 * kForks * harm::times, "each prepare handler ran once a fork");
  harm::say("%d forks, the other library saw each once", kForks);
  return 0;
}
