// How the Python face says no: the four exceptions of edgewise.base, and the checks that several verbs share.
#pragma once

#include <nanobind/nanobind.h>

#include <string>

namespace edgewise {

[[noreturn]] inline void raise(const char* kind, const std::string& message) {
  const nanobind::object type = nanobind::module_::import_("edgewise.base.errors").attr(kind);
  PyErr_SetString(type.ptr(), message.c_str());
  throw nanobind::python_error();
}
[[noreturn]] inline void refuse(const std::string& message) { raise("BadInput", message); }
[[noreturn]] inline void out_of_room(const char* who) {
  raise("OutOfRoom", std::string(who).append(": there is not enough memory for the result or its working space."));
}
inline void need(bool ok, const char* message) {
  if (!ok) refuse(message);
}

inline void check_ids(const int32_t* ids, int64_t n, int64_t limit, const char* what) {
  for (int64_t i = 0; i < n; ++i)
    if (ids[i] < 0 || ids[i] >= limit)
      refuse(std::string(what) + " " + std::to_string(ids[i]) + " at place " + std::to_string(i) + " is outside [0, " + std::to_string(limit) + ").");
}

}  // namespace edgewise
