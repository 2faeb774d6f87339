// SPDX-License-Identifier: Apache-2.0
// Catch2's version 3 (Debian 13 and later) by the name that its one header had in version 2.
#pragma once

#include <catch2/catch_all.hpp>
