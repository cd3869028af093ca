// SPDX-License-Identifier: Apache-2.0
// Binary interface of the object MindSpore 2.10 hands to op-plugin kernels as `extra`.
//
// Only the order of the virtual functions and the layout of the returned structures matter; the library neither
// constructs nor destroys such an object. Functions that return std::string are declared to keep their places in
// the table and must not be called: their result depends on the string ABI MindSpore was built with.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace vmo::plugin {

// Strides and offset count elements; the data pointer of the kernel call is the base of the storage.
struct StorageLayout {
  std::vector<int64_t> strides;
  size_t offset;
};

class KernelInputInfo {
 public:
  virtual ~KernelInputInfo() = default;
  virtual bool is_scalar(size_t index) = 0;
  virtual size_t input_count() = 0;
  virtual bool bool_input(size_t index) = 0;
  virtual int64_t int_input(size_t index) = 0;
  virtual double float_input(size_t index) = 0;
  virtual std::string string_input(size_t index) = 0;
  virtual std::vector<int64_t> int_list_input(size_t index) = 0;
  virtual std::vector<double> float_list_input(size_t index) = 0;
  virtual std::vector<std::vector<int64_t>> int_table_input(size_t index) = 0;
  virtual std::vector<std::vector<double>> float_table_input(size_t index) = 0;
  virtual int type_id(size_t index) = 0;
  // Empty for a contiguous tensor.
  virtual std::optional<StorageLayout> layout(size_t index) = 0;
};

}  // namespace vmo::plugin
