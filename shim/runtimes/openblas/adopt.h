// SPDX-License-Identifier: Apache-2.0
// How a copy of OpenBLAS is found: by the handler that it registers.
#pragma once

namespace forksafe {

/// `prepare` is about to be registered with pthread_atfork, with neither a parent nor a child
/// handler. If it is the shutdown of an OpenBLAS, blas_thread_shutdown_, that copy is adopted:
/// true, and the handler must not be passed on.
bool adopt_openblas(void (*prepare)());

/// Remembers what the environment says about threads, before the program can change it.
void remember_environment();

}  // namespace forksafe
