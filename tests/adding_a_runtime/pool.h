// SPDX-License-Identifier: Apache-2.0
// What libpool exports.
#pragma once

extern "C" {

/// The sum of some numbers. Waits until a place is free.
long pool_sum(const long* numbers, int count);

extern int pool_free;
void pool_take();
void pool_give();
}
