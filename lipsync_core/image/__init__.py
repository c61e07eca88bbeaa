"""Operations on images, affine maps and landmarks; tensors only."""
