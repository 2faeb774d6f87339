// SPDX-License-Identifier: Apache-2.0
// A preload that does nothing: what the start-up with the library is measured against.
