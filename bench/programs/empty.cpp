// SPDX-License-Identifier: Apache-2.0
// A preload that does nothing. The start-up with the library is compared with it.
