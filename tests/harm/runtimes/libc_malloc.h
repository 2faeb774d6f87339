// SPDX-License-Identifier: Apache-2.0
// glibc's allocator by its other names, for programs that define malloc.
#pragma once

#include <cstddef>

extern "C" {
void* __libc_malloc(size_t size);
void* __libc_calloc(size_t count, size_t size);
void* __libc_realloc(void* memory, size_t size);
void __libc_free(void* memory);
}
