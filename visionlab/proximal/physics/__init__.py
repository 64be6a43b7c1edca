"""Linear measurements ``y = A x + noise`` of batches of images, each with an exact adjoint."""

from visionlab.registry import lazy_exports

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "Physics": "base",
        "add_noise": "base",
        "conjugate_gradients": "krylov",
        "norm2_lanczos": "krylov",
        "norm2_nonnegative": "krylov",
        "CircularBlur": "blur",
        "ValidBlur": "blur",
        "gaussian_blur": "blur",
        "gaussian_kernel": "blur",
        "CompressedSensing": "compressed_sensing",
        "Tomography": "tomography",
        "Inpainting": "inpainting",
        "SuperResolution": "super_resolution",
        "FunctionOperator": "linear",
        "MatrixOperator": "linear",
    },
)
