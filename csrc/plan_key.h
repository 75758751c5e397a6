#pragma once

#include <Python.h>

namespace syncflow {

// Of tensors and Nones, as a vectorcall has them: bytes that say their shapes, dtypes and devices,
// and whether a gradient is wanted; None where nothing is to be kept of such a call.
PyObject* plan_key(PyObject*, PyObject* const* given, Py_ssize_t count);

}  // namespace syncflow
