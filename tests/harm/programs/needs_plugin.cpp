// SPDX-License-Identifier: Apache-2.0
// A library that needs another one, plugin.cpp, whose constructor runs first.
extern int plugin_is_needed;
int* needed = &plugin_is_needed;
