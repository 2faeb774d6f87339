// SPDX-License-Identifier: Apache-2.0
// libblas_inside: OpenBLAS (libopenblas.a) in a library that exports its dgemm_ alone.
extern void dgemm_(void);
void (*const blas_inside)(void) = dgemm_;
