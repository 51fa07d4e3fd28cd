/* SiLU(GroupNorm(x + added) weight + bias) and its derivative, for images in channels-last memory.

   x, grad and out are [images, pixels, channels] of float, or of bfloat16 where `bf16` is set; all else is float, and
   computed as such. added, channel_mean, mean, scale, offset, slope, level and the other gradients are [images,
   channels], inverse is [images, groups], weight and bias are [images, channels] or, with a `stride` of 0 in place of
   `channels`, one row for all images. x - mean is x + added less its mean; scale and offset are all that is done to a
   channel before SiLU. `space` is [images, blocks, 2, channels], one block for 64 pixels or the rest.

   Sums are those of blocks, added up in order: no number depends on how many threads there are, or on other images.
*/

#include <math.h>
#include <stdint.h>

#define BLOCK 64 /* pixels */
#define IN_CACHE (1 << 18) /* bytes of x a thread */

typedef struct {
    int64_t images, pixels, channels, groups, stride, bf16, silu, threads;
} Sizes;

static inline float bounded(float value, float low, float high) {
    value = value < low ? low : value;
    return value > high ? high : value;
}

/* e^x to a unit in the last place or two: 2^n e^r with |r| at most ln(2) / 2, of which seven terms are enough. */
static inline float exponential(float x) {
    x = bounded(x, -87.0f, 87.0f);
    const float n = rintf(x * 1.44269504f);
    const float r = (x - n * 0.693145752f) - n * 1.42860677e-6f;
    float y = 1.0f / 5040.0f;
    y = y * r + 1.0f / 720.0f;
    y = y * r + 1.0f / 120.0f;
    y = y * r + 1.0f / 24.0f;
    y = y * r + 1.0f / 6.0f;
    y = y * r + 0.5f;
    y = y * r + 1.0f;
    y = y * r + 1.0f;
    union { int32_t bits; float value; } power = { ((int32_t)n + 127) << 23 };
    return y * power.value;
}

static inline float sigmoid(float z) { return 1.0f / (1.0f + exponential(-z)); }

/* A pixel's channels as floats: themselves, or widened into `space`. */
static inline const float *row(const void *x, int64_t at, const Sizes *s, float *space) {
    if (!s->bf16) return (const float *)x + at;
    const int64_t channels = s->channels;
    const uint16_t *restrict from = (const uint16_t *)x + at;
    uint32_t *restrict bits = (uint32_t *)space;
    for (int64_t c = 0; c < channels; c++) bits[c] = (uint32_t)from[c] << 16;
    return space;
}

/* Where a pixel's channels may be written as floats, and what rounds them (to nearest, ties to even) if need be. */
static inline float *target(void *out, int64_t at, const Sizes *s, float *space) {
    return s->bf16 ? space : (float *)out + at;
}

static inline void finished(void *out, int64_t at, const Sizes *s, const float *space) {
    if (!s->bf16) return;
    const int64_t channels = s->channels;
    uint16_t *restrict to = (uint16_t *)out + at;
    const uint32_t *restrict bits = (const uint32_t *)space;
    for (int64_t c = 0; c < channels; c++) {
        const uint32_t value = bits[c], rounded = (value + 0x7fff + ((value >> 16) & 1)) >> 16;
        to[c] = (uint16_t)((value & 0x7fffffff) > 0x7f800000 ? 0x7fc0 : rounded);
    }
}

/* Images that all threads work on before they go on to the next ones: as many as their caches hold. */
static inline int64_t together(const Sizes *s) {
    const int64_t bytes = s->pixels * s->channels * (s->bf16 ? 2 : 4), each = IN_CACHE / bytes;
    return s->threads * (each > 1 ? each : 1);
}

static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

static inline int64_t blocks_of(const Sizes *s) { return (s->pixels + BLOCK - 1) / BLOCK; }

static inline int64_t end_of(int64_t block, const Sizes *s) {
    const int64_t end = (block + 1) * BLOCK;
    return end < s->pixels ? end : s->pixels;
}

/* Of a block's pixels, less the image's first one: their sum and that of their squares. */
static void sums(const void *x, int64_t image, int64_t block, const Sizes *s, float *space) {
    const int64_t channels = s->channels;
    float widened[channels], of_first[channels];
    float *restrict sum = space + (image * blocks_of(s) + block) * 2 * channels, *restrict squares = sum + channels;
    const float *restrict first = row(x, image * s->pixels * channels, s, of_first);
    for (int64_t c = 0; c < channels; c++) sum[c] = squares[c] = 0.0f;
    for (int64_t p = block * BLOCK; p < end_of(block, s); p++) {
        const float *restrict values = row(x, (image * s->pixels + p) * channels, s, widened);
        for (int64_t c = 0; c < channels; c++) {
            const float value = values[c] - first[c];
            sum[c] += value;
            squares[c] += value * value;
        }
    }
}

/* The sums of an image's blocks, added up: [2, channels]. */
static void added_up(int64_t image, const Sizes *s, const float *space, double *total) {
    const int64_t numbers = 2 * s->channels, blocks = blocks_of(s);
    for (int64_t c = 0; c < numbers; c++) total[c] = 0.0;
    for (int64_t block = 0; block < blocks; block++)
        for (int64_t c = 0; c < numbers; c++) total[c] += space[(image * blocks + block) * numbers + c];
}

/* What the sums of an image's blocks make of its channels and groups. */
static void statistics(const void *x, int64_t image, const Sizes *s, float eps, const float *space,
                       const float *added, const float *weight, const float *bias, float *channel_mean, float *mean,
                       float *inverse, float *scale, float *offset) {
    const int64_t channels = s->channels, of_group = channels / s->groups, at = image * channels;
    float widened[channels];
    double total[2 * channels];
    const float *first = row(x, at * s->pixels, s, widened);
    added_up(image, s, space, total);
    for (int64_t g = 0; g < s->groups; g++) {
        const int64_t begin = g * of_group, end = begin + of_group;
        double level = 0.0, variance = 0.0;
        for (int64_t c = begin; c < end; c++) {
            channel_mean[at + c] = first[c] + (float)(total[c] / s->pixels);
            level += channel_mean[at + c] + (added ? added[at + c] : 0.0f);
        }
        level /= of_group;
        for (int64_t c = begin; c < end; c++) {
            const double own = total[c] / s->pixels;
            const double away = channel_mean[at + c] + (added ? added[at + c] : 0.0f) - level;
            variance += total[channels + c] / s->pixels - own * own + away * away;
        }
        const float factor = (float)(1.0 / sqrt(variance / of_group + eps));
        inverse[image * s->groups + g] = factor;
        for (int64_t c = begin; c < end; c++) {
            mean[at + c] = (float)(level - (added ? added[at + c] : 0.0f));
            scale[at + c] = factor * weight[image * s->stride + c];
            offset[at + c] = bias[image * s->stride + c] - mean[at + c] * scale[at + c];
        }
    }
}

static void mapped(const void *x, void *out, int64_t image, int64_t block, const Sizes *s, const float *restrict scale,
                   const float *restrict offset) {
    const int64_t silu = s->silu, channels = s->channels;
    float from[channels], to[channels];
    scale += image * channels, offset += image * channels;
    for (int64_t p = block * BLOCK; p < end_of(block, s); p++) {
        const int64_t at = (image * s->pixels + p) * channels;
        const float *restrict values = row(x, at, s, from);
        float *restrict results = target(out, at, s, to);
        for (int64_t c = 0; c < channels; c++) {
            const float z = offset[c] + values[c] * scale[c];
            results[c] = silu ? z * sigmoid(z) : z;
        }
        finished(out, at, s, to);
    }
}

void norm_forward(const Sizes *s, float eps, const void *x, const float *added, const float *weight,
                  const float *bias, float *space, void *out, float *channel_mean, float *mean, float *inverse,
                  float *scale, float *offset) {
    const int64_t blocks = blocks_of(s);
#pragma omp parallel num_threads(s->threads)
    for (int64_t begin = 0; begin < s->images; begin += together(s)) {
        const int64_t end = least(begin + together(s), s->images);
#pragma omp for collapse(2) schedule(static)
        for (int64_t image = begin; image < end; image++)
            for (int64_t block = 0; block < blocks; block++) sums(x, image, block, s, space);
#pragma omp for schedule(static)
        for (int64_t image = begin; image < end; image++)
            statistics(x, image, s, eps, space, added, weight, bias, channel_mean, mean, inverse, scale, offset);
#pragma omp for collapse(2) schedule(static)
        for (int64_t image = begin; image < end; image++)
            for (int64_t block = 0; block < blocks; block++) mapped(x, out, image, block, s, scale, offset);
    }
}

/* The gradient before SiLU. */
static inline float before(float grad, float value, float scale, float offset, int64_t silu) {
    if (!silu) return grad;
    const float z = offset + value * scale, share = sigmoid(z);
    return grad * share * (1.0f + z * (1.0f - share));
}

/* Of a block's pixels: the sum of the gradient before SiLU, and that of it times x - mean. */
static void gradient_sums(const void *x, const void *grad, int64_t image, int64_t block, const Sizes *s,
                          const float *restrict mean, const float *restrict scale, const float *restrict offset,
                          float *space) {
    const int64_t silu = s->silu, channels = s->channels;
    float widened[channels], more[channels];
    float *restrict sum = space + (image * blocks_of(s) + block) * 2 * channels, *restrict product = sum + channels;
    mean += image * channels, scale += image * channels, offset += image * channels;
    for (int64_t c = 0; c < channels; c++) sum[c] = product[c] = 0.0f;
    for (int64_t p = block * BLOCK; p < end_of(block, s); p++) {
        const int64_t at = (image * s->pixels + p) * channels;
        const float *restrict values = row(x, at, s, widened), *restrict grads = row(grad, at, s, more);
        for (int64_t c = 0; c < channels; c++) {
            const float g = before(grads[c], values[c], scale[c], offset[c], silu);
            sum[c] += g;
            product[c] += g * (values[c] - mean[c]);
        }
    }
}

/* What the sums of an image's blocks make of the gradients of weight, bias and added; and each channel's slope and
   level in

       dx = inverse (dn - mean(dn) - n mean(n dn)),   n = (x - mean) inverse,   dn = g weight,   means over a group.
*/
static void gradients(int64_t image, const Sizes *s, const float *space, const float *weight,
                      const float *channel_mean, const float *mean, const float *inverse, const float *scale,
                      float *slope, float *level, float *grad_added, float *grad_weight, float *grad_bias) {
    const int64_t channels = s->channels, of_group = channels / s->groups, at = image * channels;
    double total[2 * channels];
    added_up(image, s, space, total);
    for (int64_t g = 0; g < s->groups; g++) {
        const int64_t begin = g * of_group, end = begin + of_group;
        const double own = inverse[image * s->groups + g], count = (double)s->pixels * of_group;
        double of_mean = 0.0, of_slope = 0.0;
        for (int64_t c = begin; c < end; c++) {
            const double factor = weight[image * s->stride + c];
            grad_bias[at + c] = (float)total[c];
            grad_weight[at + c] = (float)(total[channels + c] * own);
            of_mean += total[c] * factor;
            of_slope += total[channels + c] * own * factor;
        }
        for (int64_t c = begin; c < end; c++) {
            level[at + c] = (float)(-own * of_mean / count);
            slope[at + c] = (float)(-own * own * of_slope / count);
            const double away = (double)channel_mean[at + c] - mean[at + c];
            grad_added[at + c] =
                (float)(s->pixels * (level[at + c] + away * slope[at + c]) + total[c] * scale[at + c]);
        }
    }
}

static void gradient_of_x(const void *x, const void *grad, void *out, int64_t image, int64_t block, const Sizes *s,
                          const float *restrict mean, const float *restrict scale, const float *restrict offset,
                          const float *restrict slope, const float *restrict level) {
    const int64_t silu = s->silu, channels = s->channels, own = image * channels;
    float widened[channels], more[channels], to[channels];
    mean += own, scale += own, offset += own, slope += own, level += own;
    for (int64_t p = block * BLOCK; p < end_of(block, s); p++) {
        const int64_t at = (image * s->pixels + p) * channels;
        const float *restrict values = row(x, at, s, widened), *restrict grads = row(grad, at, s, more);
        float *restrict results = target(out, at, s, to);
        for (int64_t c = 0; c < channels; c++) {
            const float g = before(grads[c], values[c], scale[c], offset[c], silu);
            results[c] = g * scale[c] + ((values[c] - mean[c]) * slope[c] + level[c]);
        }
        finished(out, at, s, to);
    }
}

void norm_backward(const Sizes *s, const void *x, const void *grad, const float *weight, const float *channel_mean,
                   const float *mean, const float *inverse, const float *scale, const float *offset, float *space,
                   float *slope, float *level, void *out, float *grad_added, float *grad_weight, float *grad_bias) {
    const int64_t blocks = blocks_of(s);
#pragma omp parallel num_threads(s->threads)
    for (int64_t begin = 0; begin < s->images; begin += together(s)) {
        const int64_t end = least(begin + together(s), s->images);
#pragma omp for collapse(2) schedule(static)
        for (int64_t image = begin; image < end; image++)
            for (int64_t block = 0; block < blocks; block++)
                gradient_sums(x, grad, image, block, s, mean, scale, offset, space);
#pragma omp for schedule(static)
        for (int64_t image = begin; image < end; image++)
            gradients(image, s, space, weight, channel_mean, mean, inverse, scale, slope, level, grad_added,
                      grad_weight, grad_bias);
#pragma omp for collapse(2) schedule(static)
        for (int64_t image = begin; image < end; image++)
            for (int64_t block = 0; block < blocks; block++)
                gradient_of_x(x, grad, out, image, block, s, mean, scale, offset, slope, level);
    }
}
