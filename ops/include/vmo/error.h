// SPDX-License-Identifier: Apache-2.0
// The one way every call reports failure: a nonzero status plus a message naming op, argument, found, expected.
#pragma once

namespace vmo {

using Status = int;
constexpr Status kOk = 0;
constexpr Status kError = 1;

// Records "<op>: <message>", writes it to stderr (a message equal to the previous one is not repeated)
// and returns kError.
[[gnu::format(printf, 2, 3)]] Status fail(const char* op, const char* format, ...);

// Copy of the last recorded message, valid until the same thread calls again; "" when nothing failed yet.
const char* last_error();
void clear_error();

}  // namespace vmo
