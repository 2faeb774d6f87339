// SPDX-License-Identifier: Apache-2.0
#include "doors/setters.h"

#include <atomic>
#include <cstring>
#include <utility>

#include "elf/slots.h"

namespace forksafe {
namespace {

constexpr int kMaxSetters = 64;

struct Setter {
  void* function;
  void (*set_by_program)(int index);
  int index;
};

Setter setters[kMaxSetters];
std::atomic<int> setter_count{0};

// The argument and the result are an int or a pointer: each has a whole register.
template <int Number>
long call(void* argument) {
  const Setter& setter = setters[Number];
  setter.set_by_program(setter.index);
  return reinterpret_cast<long (*)(void*)>(setter.function)(argument);
}

template <int... Numbers>
void* function_of(int number, std::integer_sequence<int, Numbers...>) {
  void* result = nullptr;
  ((number == Numbers ? void(result = reinterpret_cast<void*>(call<Numbers>)) : void()), ...);
  return result;
}

}  // namespace

void watch_setter(const ElfImage& image, const Symbol& setter, void (*set_by_program)(int index),
                  int index) {
  if (setter.address == nullptr || !image.span().contains(setter.address))
    return;  // watched already
  const int number = setter_count.fetch_add(1);
  if (number >= kMaxSetters) return;
  setters[number] = {setter.address, set_by_program, index};
  void* const function = function_of(number, std::make_integer_sequence<int, kMaxSetters>());
  const char* const name = image.name_of(setter);
  each_loaded_object([&](const ElfImage& caller) {
    if (!caller.needs(image)) return true;
    redirect_slots(
        caller, [name](const char* slot_name) { return strcmp(slot_name, name) == 0 ? 0 : -1; },
        [&](int, void* behind) { return behind == setter.address ? function : nullptr; });
    return true;
  });
  redirect_symbol(image, setter, function);
}

}  // namespace forksafe
