// The Python face of the engine room. Each bind_*.cc registers one room; every argument check lives in this folder.
#include <nanobind/nanobind.h>

namespace edgewise {
void bind_uring(nanobind::module_& m);
#ifdef EDGEWISE_HAS_PARSE
void bind_parse(nanobind::module_& m);
void bind_pieces(nanobind::module_& m);
#endif
#ifdef EDGEWISE_HAS_FORMATS
void bind_formats(nanobind::module_& m);
#endif
#ifdef EDGEWISE_HAS_OPS
void bind_ops(nanobind::module_& m);
void bind_program(nanobind::module_& m);
void bind_fill(nanobind::module_& m);
void bind_tuning(nanobind::module_& m);
void bind_bundle(nanobind::module_& m);
void bind_neurons(nanobind::module_& m);
#endif
}  // namespace edgewise

NB_MODULE(_native, m) {
  m.doc() = "edgewise's engine room: arithmetic and bytes. Import it through edgewise.kernels.";
  edgewise::bind_uring(m);
#ifdef EDGEWISE_HAS_PARSE
  edgewise::bind_parse(m);
  edgewise::bind_pieces(m);
#endif
#ifdef EDGEWISE_HAS_FORMATS
  edgewise::bind_formats(m);
#endif
#ifdef EDGEWISE_HAS_OPS
  edgewise::bind_ops(m);
  edgewise::bind_program(m);
  edgewise::bind_fill(m);
  edgewise::bind_tuning(m);
  edgewise::bind_bundle(m);
  edgewise::bind_neurons(m);
#endif
}
