// Sums over neighbours with tabulated filters, and their derivatives; see ase_cg/inference/convolution.py.
//
// Each unordered pair of beads is looked at once, and not at all beyond the cutoff. A pair's derivatives by its
// distance and by its angular parts are those of both its directions, written at (i, j) with j < i.

#include <ATen/Dispatch.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <torch/library.h>

#include <algorithm>
#include <cstdint>
#include <span>
#include <tuple>
#include <utility>
#include <vector>

namespace {

using at::Tensor;

constexpr int64_t COEFFICIENTS = 6;

struct Product {
    int64_t out, filter, angular, feature;
    double along, back;  // coefficients of the pair and of its opposite
};

std::vector<Product> read(const Tensor& numbers, const Tensor& coefficients) {
    const Tensor exact = coefficients.to(at::kDouble);
    const auto* n = numbers.const_data_ptr<int64_t>();
    const auto* a = exact.const_data_ptr<double>();
    std::vector<Product> products;
    for (int64_t row = 0; row < numbers.size(0); ++row, n += 4, a += 2)
        products.push_back({n[0], n[1], n[2], n[3], a[0], a[1]});
    return products;
}

// One filter, without an angular part, is all there is.
bool is_simple(const std::vector<Product>& products, int64_t functions) {
    if (products.size() != 1 || functions != 1) return false;
    const Product& one = products[0];
    return one.out == 0 && one.angular < 0 && one.feature == 0 && one.along == 1 && one.back == 1;
}

// Compiled graphs do not look at what they pass on: what does not fit is told, rather than read beyond its end.
void check(const Tensor& distance, const Tensor& angular, const Tensor& features, const Tensor& rows,
           const std::vector<Product>& products, int64_t outputs, int64_t intervals, int64_t functions) {
    const int64_t replicas = distance.size(0), n = distance.size(1);
    const auto fits = [](int64_t size, int64_t whole) { return size == whole || size == 1; };
    TORCH_CHECK(distance.dim() == 3 && distance.size(2) == n, "distances must be of shape (R, N, N)");
    TORCH_CHECK(features.dim() == 4 && fits(features.size(1), replicas) && fits(features.size(2), n) &&
                    features.size(3) == rows.size(1),
                "features do not fit the distances and the table");
    TORCH_CHECK(rows.is_contiguous() && rows.size(0) == (intervals + 1) * COEFFICIENTS * functions,
                "the table is of another size");
    const int64_t components = angular.numel() / std::max<int64_t>(1, replicas * n * n);
    for (const auto& one : products)
        TORCH_CHECK(0 <= one.out && one.out < outputs && 0 <= one.filter && one.filter < functions &&
                        one.angular < components && 0 <= one.feature && one.feature < features.size(0),
                    "a product names what is not there");
}

// The channels side by side; other strides are as they are.
Tensor side_by_side(const Tensor& t) { return t.size(3) == 1 || t.stride(3) == 1 ? t : t.contiguous(); }

// Numbers (components, R, N, C) by component, replica and bead; strides are zero where they are the same for all.
template <typename T>
struct Beads {
    T* data;
    int64_t component, replica, bead;
    T* at(int64_t k, int64_t r, int64_t i) const { return data + k * component + r * replica + i * bead; }
};

template <typename T>
Beads<T> beads(T* data, const Tensor& t) {
    const auto stride = [&](int64_t dim) { return t.size(dim) == 1 ? 0 : t.stride(dim); };
    return {data, stride(0), stride(1), stride(2)};
}

// The table: row (k · 6 + q) · P + p holds the coefficients of t^q in interval k of function p.
template <typename T>
struct Table {
    const T* rows;
    int64_t intervals, functions, channels;
    T per_length;

    // Beads before bead i that are within the cutoff, or NaN away; found without a branch that cannot be foreseen.
    std::span<const int64_t> near(const T* distances, int64_t i, std::vector<int64_t>& found) const {
        size_t count = 0;
        for (int64_t j = 0; j < i; ++j) {
            found[count] = j;
            count += !(distances[j] * per_length >= T(intervals));
        }
        return {found.data(), count};
    }

    // The first row of a distance's interval, and the place within; NaN stays in the place.
    std::pair<const T*, T> find(T distance) const {
        const T place = distance * per_length;
        const auto interval = static_cast<int64_t>(place > T(0) ? place : T(0));
        return {rows + interval * COEFFICIENTS * functions * channels, place - T(interval)};
    }
};

template <typename T>
Table<T> table_of(const Tensor& rows, int64_t intervals, int64_t functions, double per_length) {
    return {rows.const_data_ptr<T>(), intervals, functions, rows.size(1), T(per_length)};
}

// The innermost loops are functions of their own, never inlined, so that the compiler knows that nothing overlaps: where
// it does not, it falls back to one number at a time.
#define LOOP template <typename T> __attribute__((noinline))

LOOP
void evaluate(int64_t channels, int64_t q, T t, const T* __restrict c0, T* __restrict w) {
#pragma omp simd
    for (int64_t c = 0; c < channels; ++c) {
        const T c1 = c0[q + c], c2 = c0[2 * q + c], c3 = c0[3 * q + c], c4 = c0[4 * q + c], c5 = c0[5 * q + c];
        w[c] = c0[c] + t * (c1 + t * (c2 + t * (c3 + t * (c4 + t * c5))));
    }
}

LOOP
void evaluate(int64_t channels, int64_t q, T t, const T* __restrict c0, T* __restrict w, T* __restrict slope) {
#pragma omp simd
    for (int64_t c = 0; c < channels; ++c) {
        const T c1 = c0[q + c], c2 = c0[2 * q + c], c3 = c0[3 * q + c], c4 = c0[4 * q + c], c5 = c0[5 * q + c];
        w[c] = c0[c] + t * (c1 + t * (c2 + t * (c3 + t * (c4 + t * c5))));
        slope[c] = c1 + t * (2 * c2 + t * (3 * c3 + t * (4 * c4 + t * 5 * c5)));
    }
}

// Both directions of one product.
LOOP
void exchange(int64_t channels, T a, T b, const T* __restrict w, const T* __restrict si, const T* __restrict sj,
              T* __restrict oi, T* __restrict oj) {
#pragma omp simd
    for (int64_t c = 0; c < channels; ++c) {
        oi[c] += a * w[c] * sj[c];
        oj[c] += b * w[c] * si[c];
    }
}

// Its derivatives by the angular part and by the place in the table.
LOOP
std::pair<T, T> differentiate(int64_t channels, T a, T b, const T* __restrict w, const T* __restrict slope,
                              const T* __restrict si, const T* __restrict sj, const T* __restrict gi,
                              const T* __restrict gj) {
    T by_angle = 0, by_place = 0;
#pragma omp simd reduction(+ : by_angle, by_place)
    for (int64_t c = 0; c < channels; ++c) {
        const T both = a * sj[c] * gi[c] + b * si[c] * gj[c];
        by_angle += w[c] * both;
        by_place += slope[c] * both;
    }
    return {by_angle, by_place};
}

// The same for one filter alone: nothing is kept between the loops.
LOOP
void exchange_simply(int64_t channels, T t, const T* __restrict c0, const T* __restrict si, const T* __restrict sj,
                     T* __restrict oi, T* __restrict oj) {
    const int64_t q = channels;
#pragma omp simd
    for (int64_t c = 0; c < channels; ++c) {
        const T c1 = c0[q + c], c2 = c0[2 * q + c], c3 = c0[3 * q + c], c4 = c0[4 * q + c], c5 = c0[5 * q + c];
        const T w = c0[c] + t * (c1 + t * (c2 + t * (c3 + t * (c4 + t * c5))));
        oi[c] += w * sj[c];
        oj[c] += w * si[c];
    }
}

LOOP
T differentiate_simply(int64_t channels, T t, const T* __restrict c0, const T* __restrict si, const T* __restrict sj,
                       const T* __restrict gi, const T* __restrict gj, T* __restrict to_si, T* __restrict to_sj) {
    const int64_t q = channels;
    T by_place = 0;
#pragma omp simd reduction(+ : by_place)
    for (int64_t c = 0; c < channels; ++c) {
        const T c1 = c0[q + c], c2 = c0[2 * q + c], c3 = c0[3 * q + c], c4 = c0[4 * q + c], c5 = c0[5 * q + c];
        // Horner's scheme for the value and for the slope at once.
        T w = c5 * t + c4, slope = c5 * t + w;
        w = w * t + c3, slope = slope * t + w;
        w = w * t + c2, slope = slope * t + w;
        w = w * t + c1, slope = slope * t + w;
        w = w * t + c0[c];
        to_sj[c] += w * gi[c];
        to_si[c] += w * gj[c];
        by_place += slope * (sj[c] * gi[c] + si[c] * gj[c]);
    }
    return by_place;
}

// The derivative by the place alone, where the features are given.
LOOP
T slope_simply(int64_t channels, T t, const T* __restrict c0, const T* __restrict si, const T* __restrict sj,
               const T* __restrict gi, const T* __restrict gj) {
    const int64_t q = channels;
    T by_place = 0;
#pragma omp simd reduction(+ : by_place)
    for (int64_t c = 0; c < channels; ++c) {
        const T c1 = c0[q + c], c2 = c0[2 * q + c], c3 = c0[3 * q + c], c4 = c0[4 * q + c], c5 = c0[5 * q + c];
        const T slope = c1 + t * (2 * c2 + t * (3 * c3 + t * (4 * c4 + t * 5 * c5)));
        by_place += slope * (sj[c] * gi[c] + si[c] * gj[c]);
    }
    return by_place;
}

template <typename T>
Tensor forward(const Tensor& distance, const Tensor& angular, const Tensor& features, const Table<T>& table,
               const std::vector<Product>& products, int64_t outputs) {
    const int64_t replicas = distance.size(0), n = distance.size(1), channels = table.channels;
    const int64_t pairs = replicas * n * n, q = table.functions * channels;
    Tensor result = at::zeros({outputs, replicas, n, channels}, features.options());
    const Tensor memory = at::empty({table.functions, channels}, features.options());
    const auto out = beads(result.mutable_data_ptr<T>(), result);
    const auto s = beads(features.const_data_ptr<T>(), features);
    const T* d = distance.const_data_ptr<T>();
    const T* y = angular.const_data_ptr<T>();
    T* w = memory.mutable_data_ptr<T>();
    const bool simple = is_simple(products, table.functions);
    std::vector<int64_t> found(n);
    for (int64_t r = 0; r < replicas; ++r)
        for (int64_t i = 0; i < n; ++i)
            for (const int64_t j : table.near(d + (r * n + i) * n, i, found)) {
                const int64_t pair = (r * n + i) * n + j;
                const auto [row, t] = table.find(d[pair]);
                if (simple) {
                    exchange_simply(channels, t, row, s.at(0, r, i), s.at(0, r, j), out.at(0, r, i), out.at(0, r, j));
                    continue;
                }
                for (int64_t p = 0; p < table.functions; ++p)
                    evaluate(channels, q, t, row + p * channels, w + p * channels);
                for (const auto& one : products) {
                    const T angle = one.angular < 0 ? T(1) : y[one.angular * pairs + pair];
                    exchange(channels, T(one.along) * angle, T(one.back) * angle, w + one.filter * channels,
                             s.at(one.feature, r, i), s.at(one.feature, r, j), out.at(one.out, r, i),
                             out.at(one.out, r, j));
                }
            }
    return result;
}

template <typename T>
std::tuple<Tensor, Tensor, Tensor> backward(const Tensor& gradient, const Tensor& distance, const Tensor& angular,
                                            const Tensor& features, const Table<T>& table,
                                            const std::vector<Product>& products, bool of_features) {
    const int64_t replicas = distance.size(0), n = distance.size(1), channels = table.channels;
    const int64_t pairs = replicas * n * n, q = table.functions * channels;
    Tensor to_distance = at::zeros_like(distance);
    Tensor to_angular = at::zeros_like(angular);
    Tensor to_features = at::zeros({of_features ? features.size(0) : 0, replicas, n, channels}, features.options());
    const Tensor memory = at::empty({2, table.functions, channels}, features.options());
    const auto g = beads(gradient.const_data_ptr<T>(), gradient);
    const auto s = beads(features.const_data_ptr<T>(), features);
    const auto to_s = beads(to_features.mutable_data_ptr<T>(), to_features);
    const T* d = distance.const_data_ptr<T>();
    const T* y = angular.const_data_ptr<T>();
    T* to_d = to_distance.mutable_data_ptr<T>();
    T* to_y = to_angular.mutable_data_ptr<T>();
    T *w = memory.mutable_data_ptr<T>(), *slope = w + q;
    const bool simple = is_simple(products, table.functions);
    std::vector<int64_t> found(n);
    for (int64_t r = 0; r < replicas; ++r)
        for (int64_t i = 0; i < n; ++i)
            for (const int64_t j : table.near(d + (r * n + i) * n, i, found)) {
                const int64_t pair = (r * n + i) * n + j;
                const auto [row, t] = table.find(d[pair]);
                if (simple) {
                    const T *si = s.at(0, r, i), *sj = s.at(0, r, j), *gi = g.at(0, r, i), *gj = g.at(0, r, j);
                    const T by_place = of_features ? differentiate_simply(channels, t, row, si, sj, gi, gj,
                                                                          to_s.at(0, r, i), to_s.at(0, r, j))
                                                   : slope_simply(channels, t, row, si, sj, gi, gj);
                    to_d[pair] = by_place * table.per_length;
                    continue;
                }
                for (int64_t p = 0; p < table.functions; ++p)
                    evaluate(channels, q, t, row + p * channels, w + p * channels, slope + p * channels);
                T total = 0;
                for (const auto& one : products) {
                    const T angle = one.angular < 0 ? T(1) : y[one.angular * pairs + pair];
                    const T *wp = w + one.filter * channels, *gi = g.at(one.out, r, i), *gj = g.at(one.out, r, j);
                    // Back to the features the way they came, with the coefficients of the other direction.
                    if (of_features)
                        exchange(channels, T(one.back) * angle, T(one.along) * angle, wp, gi, gj,
                                 to_s.at(one.feature, r, i), to_s.at(one.feature, r, j));
                    const auto [by_angle, by_place] =
                        differentiate(channels, T(one.along), T(one.back), wp, slope + one.filter * channels,
                                      s.at(one.feature, r, i), s.at(one.feature, r, j), gi, gj);
                    if (one.angular >= 0) to_y[one.angular * pairs + pair] += by_angle;
                    total += angle * by_place;
                }
                to_d[pair] = total * table.per_length;
            }
    return {to_distance, to_angular, to_features};
}

Tensor convolve(const Tensor& distance, const Tensor& angular, const Tensor& features, const Tensor& rows,
                const Tensor& numbers, const Tensor& coefficients, int64_t outputs, int64_t intervals,
                int64_t functions, double per_length) {
    const auto products = read(numbers, coefficients);
    check(distance, angular, features, rows, products, outputs, intervals, functions);
    Tensor result;
    AT_DISPATCH_FLOATING_TYPES(distance.scalar_type(), "convolve", [&] {
        result = forward<scalar_t>(distance.contiguous(), angular.contiguous(), side_by_side(features),
                                   table_of<scalar_t>(rows, intervals, functions, per_length), products, outputs);
    });
    return result;
}

std::tuple<Tensor, Tensor, Tensor> convolve_backward(const Tensor& gradient, const Tensor& distance,
                                                     const Tensor& angular, const Tensor& features,
                                                     const Tensor& rows, const Tensor& numbers,
                                                     const Tensor& coefficients, int64_t intervals, int64_t functions,
                                                     double per_length, bool of_features) {
    const auto products = read(numbers, coefficients);
    check(distance, angular, features, rows, products, gradient.size(0), intervals, functions);
    std::tuple<Tensor, Tensor, Tensor> result;
    AT_DISPATCH_FLOATING_TYPES(distance.scalar_type(), "convolve_backward", [&] {
        result = backward<scalar_t>(gradient.contiguous(), distance.contiguous(), angular.contiguous(),
                                    side_by_side(features),
                                    table_of<scalar_t>(rows, intervals, functions, per_length), products, of_features);
    });
    return result;
}

}  // namespace

TORCH_LIBRARY(ase_cg, library) {
    const std::vector<at::Tag> tags = {at::Tag::needs_contiguous_strides};
    library.def(
        "convolve(Tensor distance, Tensor angular, Tensor features, Tensor rows, Tensor numbers, "
        "Tensor coefficients, int outputs, int intervals, int functions, float per_length) -> Tensor",
        tags);
    library.def(
        "convolve_backward(Tensor gradient, Tensor distance, Tensor angular, Tensor features, Tensor rows, "
        "Tensor numbers, Tensor coefficients, int intervals, int functions, float per_length, bool of_features) "
        "-> (Tensor, Tensor, Tensor)",
        tags);
}

TORCH_LIBRARY_IMPL(ase_cg, CPU, library) {
    library.impl("convolve", convolve);
    library.impl("convolve_backward", convolve_backward);
}
