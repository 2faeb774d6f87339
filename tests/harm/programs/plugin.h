// SPDX-License-Identifier: Apache-2.0
// How plugin.cpp and the program that loads it talk to each other.
#pragma once

using ForkHandler = void (*)();
/// The plugin's own pthread_atfork. glibc drops the handlers that it registers when the plugin is
/// unloaded.
using RegisterForkHandlers = int (*)(ForkHandler prepare, ForkHandler parent, ForkHandler child);

// The program defines what the plugin's constructor and destructor do.
extern "C" {
void in_plugin_constructor(RegisterForkHandlers register_handlers);
void in_plugin_destructor();
/// Of needs_plugin.cpp. May be left out.
__attribute__((weak)) void in_last_constructor(RegisterForkHandlers register_handlers);
}
