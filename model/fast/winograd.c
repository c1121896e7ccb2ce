/* Winograd's convolution F(STEP×STEP, 3×3) of images whose channels are last (Lavin and Gray, "Fast Algorithms for
 * Convolutional Neural Networks", CVPR 2016). compiled.py puts constants before this file: STEP, BF16 (whether tensors
 * are bf16 instead of fp32), the matrices INPUT, KERNEL and OUTPUT, GROUP (tiles that a core processes at a time, a
 * multiple of ROWS) and PADDING (elements after each row of a product).
 *
 * A frame is split into tiles of TILE×TILE that overlap by 2. The transforms process as many channels at once as a
 * register holds. For each of the TILE² places of a tile, a matrix product sums over the channels. Few tiles and
 * outputs are processed at a time, so most intermediate results stay in the caches. */
#include <stddef.h>
#include <stdint.h>

#if defined(__AVX512F__)
#define LANES 16
#define ROWS 12 /* of a product, accumulated in registers, two registers each */
#elif defined(__AVX__)
#define LANES 8
#define ROWS 6
#else
#define LANES 4
#define ROWS 6
#endif
#define OUTPUTS (2 * LANES) /* output channels of a block of kernels */
#define TILE (STEP + 2)
#define PLACES (TILE * TILE)

typedef float vector __attribute__((vector_size(LANES * 4), aligned(4)));
typedef int32_t integers __attribute__((vector_size(LANES * 4), aligned(4)));

#if BF16
#include <immintrin.h>
#if !defined(__AVX512BF16__)
#error "this processor lacks native bf16 arithmetic"
#endif
typedef uint16_t element;
typedef uint16_t halves __attribute__((vector_size(LANES * 2), aligned(2)));
typedef int32_t pair __attribute__((may_alias)); /* of elements */
#define TOGETHER 2 /* channels that one instruction sums over */

static inline vector load(const element *from) {
    return (vector)(__builtin_convertvector(*(const halves *)from, integers) << 16);
}

static inline halves rounded(vector x) { return (halves)_mm512_cvtneps_pbh((__m512)x); }

static inline void store(element *to, vector x) { *(halves *)to = rounded(x); }

/* Two channels of each output, side by side. */
static inline void store_kernel(element *to, const vector *x) {
    integers first = __builtin_convertvector(rounded(x[0]), integers);
    integers second = __builtin_convertvector(rounded(x[1]), integers);
    *(integers *)to = first | second << 16;
}

static inline vector multiply_add(vector sum, const element *input, const element *kernel) {
    __m512i both = _mm512_set1_epi32(*(const pair *)input);
    return (vector)_mm512_dpbf16_ps((__m512)sum, (__m512bh)both, (__m512bh)_mm512_loadu_si512(kernel));
}
#else
typedef float element;
#define TOGETHER 1

static inline vector load(const element *from) { return *(const vector *)from; }

static inline void store(element *to, vector x) { *(vector *)to = x; }

static inline void store_kernel(element *to, const vector *x) { store(to, x[0]); }

static inline vector multiply_add(vector sum, const element *input, const element *kernel) {
    return sum + *input * load(kernel);
}
#endif

static inline vector relu_of(vector x) {
    return (vector)((integers)x & ~(x < (vector){0})); /* NaN stays NaN */
}

/* matrix @ from @ matrix^T for all lanes, [rows,columns] and [columns,columns] -> [rows,rows]. */
#define TRANSFORM(name, matrix, rows, columns)                                                                         \
    static inline __attribute__((always_inline)) void name##_once(const vector *from, int step, vector *to, int next) { \
        _Pragma("GCC unroll 8") for (int row = 0; row < (rows); row++) {                                               \
            vector sum = {0};                                                                                          \
            _Pragma("GCC unroll 8") for (int column = 0; column < (columns); column++)                                 \
                if (matrix[row][column] != 0) sum += matrix[row][column] * from[column * step];                        \
            to[row * next] = sum;                                                                                      \
        }                                                                                                              \
    }                                                                                                                  \
    static inline __attribute__((always_inline)) void name(const vector *from, vector *to) {                           \
        vector half[(columns) * (rows)];                                                                               \
        _Pragma("GCC unroll 1") for (int i = 0; i < (columns); i++)                                                    \
            name##_once(from + i * (columns), 1, half + i * (rows), 1);                                                \
        _Pragma("GCC unroll 1") for (int i = 0; i < (rows); i++) name##_once(half + i, rows, to + i, rows);            \
    }
TRANSFORM(transform_input, INPUT, TILE, TILE)
TRANSFORM(transform_kernel, KERNEL, TILE, 3)
TRANSFORM(transform_output, OUTPUT, STEP, TILE)

typedef struct {
    const element *x, *weight, *other; /* [images,height,width,inputs]; [outputs/OUTPUTS,inputs,9,OUTPUTS]; like y */
    const float *bias;                 /* [outputs] */
    element *y;                        /* [images,height,width,outputs]; may be other */
    element *tiles;                    /* workspace, [tiles_at_once/GROUP,PLACES,GROUP,inputs+PADDING] */
    element *kernels;                  /* workspace, [blocks_at_once,PLACES,inputs/TOGETHER,OUTPUTS,TOGETHER] */
    int64_t images, height, width, inputs, outputs, tiles_at_once, blocks_at_once, relu_first, relu;
} Convolution;

/* A tile's image, and its first row and column among the results. */
typedef struct {
    int64_t image, top, left;
} Place;

static inline Place place_of(const Convolution *c, int64_t tile) {
    int64_t rows = (c->height + STEP - 1) / STEP, columns = (c->width + STEP - 1) / STEP;
    return (Place){tile / (rows * columns), tile / columns % rows * STEP, tile % columns * STEP};
}

static void one_kernel(const Convolution *c, int64_t first_block, int64_t block, int64_t channel) {
    for (int64_t lane = 0; lane < OUTPUTS; lane += LANES) {
        vector transformed[TOGETHER][PLACES];
        for (int i = 0; i < TOGETHER; i++) {
            vector kernel[9];
            const element *from = c->weight + ((first_block + block) * c->inputs + channel + i) * 9 * OUTPUTS + lane;
            for (int tap = 0; tap < 9; tap++) kernel[tap] = load(from + tap * OUTPUTS);
            transform_kernel(kernel, transformed[i]);
        }
        for (int p = 0; p < PLACES; p++) {
            vector x[TOGETHER];
            for (int i = 0; i < TOGETHER; i++) x[i] = transformed[i][p];
            store_kernel(c->kernels + ((block * PLACES + p) * c->inputs + channel) * OUTPUTS + lane * TOGETHER, x);
        }
    }
}

static void one_input(const Convolution *c, int64_t first, int64_t tile) {
    Place at = place_of(c, first + tile);
    int64_t row = c->inputs + PADDING;
    element *to = c->tiles + (tile / GROUP * PLACES * GROUP + tile % GROUP) * row;
    const element *image = c->x + at.image * c->height * c->width * c->inputs;
    for (int64_t channel = 0; channel < c->inputs; channel += LANES) {
        vector x[PLACES], transformed[PLACES];
        for (int i = 0; i < TILE; i++)
            for (int j = 0; j < TILE; j++) {
                int64_t y = at.top + i - 1, z = at.left + j - 1;
                int inside = y >= 0 && y < c->height && z >= 0 && z < c->width;
                vector value = inside ? load(image + (y * c->width + z) * c->inputs + channel) : (vector){0};
                x[i * TILE + j] = c->relu_first ? relu_of(value) : value;
            }
        transform_input(x, transformed);
        for (int p = 0; p < PLACES; p++) store(to + p * GROUP * row + channel, transformed[p]);
    }
}

/* [GROUP,inputs] @ [inputs,OUTPUTS] */
static inline void multiply(const element *tiles, const element *kernels, float *products, int64_t inputs) {
    int64_t row = inputs + PADDING;
    for (int first = 0; first < GROUP; first += ROWS) {
        vector sums[ROWS][2] = {0};
        for (int64_t channel = 0; channel < inputs; channel += TOGETHER) {
            const element *kernel = kernels + channel * OUTPUTS;
#pragma GCC unroll 12
            for (int i = 0; i < ROWS; i++)
                for (int side = 0; side < 2; side++)
                    sums[i][side] = multiply_add(
                        sums[i][side], tiles + (first + i) * row + channel, kernel + side * LANES * TOGETHER);
        }
#pragma GCC unroll 12
        for (int i = 0; i < ROWS; i++)
            for (int side = 0; side < 2; side++)
                *(vector *)(products + (first + i) * OUTPUTS + side * LANES) = sums[i][side];
    }
}

static void one_result(const Convolution *c, const float *products, int64_t tile, int64_t first_output) {
    Place at = place_of(c, tile);
    int64_t rows = c->height - at.top < STEP ? c->height - at.top : STEP;
    int64_t columns = c->width - at.left < STEP ? c->width - at.left : STEP;
    for (int64_t lane = 0; lane < OUTPUTS; lane += LANES) {
        vector x[PLACES], result[STEP * STEP];
        for (int p = 0; p < PLACES; p++) x[p] = *(const vector *)(products + p * GROUP * OUTPUTS + lane);
        transform_output(x, result);
        vector bias = *(const vector *)(c->bias + first_output + lane);
        for (int64_t i = 0; i < rows; i++)
            for (int64_t j = 0; j < columns; j++) {
                int64_t position = (at.image * c->height + at.top + i) * c->width + at.left + j;
                int64_t offset = position * c->outputs + first_output + lane;
                vector value = result[i * STEP + j] + bias;
                if (c->other) value += load(c->other + offset);
                store(c->y + offset, c->relu ? relu_of(value) : value);
            }
    }
}

int outputs_of_a_block(void) { return OUTPUTS; }

void convolve(const Convolution *c) {
    int64_t tiles = c->images * ((c->height + STEP - 1) / STEP) * ((c->width + STEP - 1) / STEP);
    int64_t all_blocks = c->outputs / OUTPUTS;
#pragma omp parallel
    for (int64_t first = 0; first < tiles; first += c->tiles_at_once) {
        int64_t some = tiles - first < c->tiles_at_once ? tiles - first : c->tiles_at_once;
#pragma omp for schedule(dynamic, 4)
        for (int64_t tile = 0; tile < some; tile++) one_input(c, first, tile);
        for (int64_t block = 0; block < all_blocks; block += c->blocks_at_once) {
            int64_t blocks = all_blocks - block < c->blocks_at_once ? all_blocks - block : c->blocks_at_once;
            if (first == 0 || blocks < all_blocks) {
#pragma omp for collapse(2) schedule(dynamic, 32)
                for (int64_t b = 0; b < blocks; b++)
                    for (int64_t channel = 0; channel < c->inputs; channel += TOGETHER)
                        one_kernel(c, block, b, channel);
            }
#pragma omp for collapse(2) schedule(dynamic)
            for (int64_t group = 0; group < (some + GROUP - 1) / GROUP; group++)
                for (int64_t b = 0; b < blocks; b++) {
                    float products[PLACES * GROUP * OUTPUTS] __attribute__((aligned(64)));
                    for (int64_t p = 0; p < PLACES; p++)
                        multiply(
                            c->tiles + (group * PLACES + p) * GROUP * (c->inputs + PADDING),
                            c->kernels + (b * PLACES + p) * c->inputs * OUTPUTS,
                            products + p * GROUP * OUTPUTS, c->inputs);
                    for (int64_t i = 0; i < GROUP && group * GROUP + i < some; i++)
                        one_result(c, products + i * OUTPUTS, first + group * GROUP + i, (block + b) * OUTPUTS);
                }
        }
    }
}
