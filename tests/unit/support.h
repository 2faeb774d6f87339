// SPDX-License-Identifier: Apache-2.0
// What several unit tests need: fixtures (small shared objects built for them), and children that
// can't outlive their test.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "elf/image.h"

/// The path of a fixture: "symbols_gnu", "doors_lazy", ...; see meson.build.
std::string fixture_path(const std::string& name);

/// dlopen for itself (RTLD_LOCAL), lazily where the object allows it. Throws when it fails.
void* load(const std::string& path);

/// The address of `name` in a loaded object. Throws when there is none.
void* symbol_in(void* handle, const char* name);

template <typename Function>
Function function_in(void* handle, const char* name) {
  return reinterpret_cast<Function>(symbol_in(handle, name));
}

/// The loaded object that holds `address`, read.
forksafe::ElfImage image_at(const void* address);

/// A directory for the life of the object.
class TemporaryDirectory {
 public:
  TemporaryDirectory();
  ~TemporaryDirectory();
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;

  std::string file(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

std::string read_file(const std::string& path);
void write_file(const std::string& path, const std::string& content);

/// Forks, calls `body` in the child, and returns the text that `body` returns. By convention that
/// is empty if all is well. A child that takes longer than `limit_ms` is killed, and the result is
/// "hung". If a child dies otherwise, the result is "signal N" or "exit N".
std::string run_in_child(const std::function<std::string()>& body, int limit_ms = 20000);

/// From here on a system call of this process fails with EPERM if its argument (counted from 0) has
/// one of these bits in its low word. False if seccomp is not available.
bool forbid_call(long call, int argument, uint32_t bits);
