/* What only this room may do with a set. */
#ifndef TENSOR_SET_H
#define TENSOR_SET_H

#include "tensor/tensor.h"

/* Tensor i, whose data and map may be changed. */
struct moe_tensor *moe_tensors_mutable(struct moe_tensors *s, size_t i);

#endif
