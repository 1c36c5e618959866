// The people of an image, by onnxruntime and a file of `dynpose export`:
//
//     pose pose.onnx street.png [score]
//
// It prints what dynpose.runtime.Pose returns: a line for each person with score, class and box, and one for each
// keypoint. All coordinates are continuous pixels of the image: (0, 0) is the corner of the upper left pixel.
// The file says how the image is resized, padded and ordered; nothing of a model is written here.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>
#include <onnxruntime_cxx_api.h>
#define STB_IMAGE_IMPLEMENTATION
#include <stb/stb_image.h>

using nlohmann::json;

// Rows of pixels with three channels.
struct Image {
    int height, width;
    std::vector<uint8_t> pixels;

    Image(int h, int w) : height(h), width(w), pixels(size_t(h) * w * 3) {}
    uint8_t* at(int y, int x) { return &pixels[(size_t(y) * width + x) * 3]; }
    const uint8_t* at(int y, int x) const { return &pixels[(size_t(y) * width + x) * 3]; }
};

Image read_image(const char* path) {
    int width, height, channels;
    uint8_t* data = stbi_load(path, &width, &height, &channels, 3);
    if (!data) throw std::runtime_error(std::string(path) + ": " + stbi_failure_reason());
    Image image(height, width);
    std::copy(data, data + image.pixels.size(), image.pixels.begin());
    stbi_image_free(data);
    return image;
}

// One side of Pillow's bilinear resize: the first input pixel of each output pixel, and weights in 22 bits.
struct Weights {
    std::vector<int> first;
    std::vector<std::vector<int>> values;

    Weights(int in, int out) {
        const double scale = double(in) / out, support = std::max(1.0, scale);
        for (int i = 0; i < out; ++i) {
            const double center = (i + 0.5) * scale;
            const int begin = std::max(0, int(center - support + 0.5));
            const int end = std::min(in, int(center + support + 0.5));
            std::vector<double> weights;
            double sum = 0;
            for (int x = begin; x < end; ++x) {
                weights.push_back(std::max(0.0, 1 - std::abs((x - center + 0.5) / support)));
                sum += weights.back();
            }
            first.push_back(begin);
            values.emplace_back();
            for (double weight : weights) values.back().push_back(int(0.5 + weight / sum * (1 << 22)));
        }
    }
};

// Pillow's bilinear resize, bit for bit: models are trained on images that it has made smaller.
Image resized(const Image& image, int height, int width) {
    Image wide(image.height, width), result(height, width);
    const Weights columns(image.width, width), rows(image.height, height);
    for (int y = 0; y < image.height; ++y)
        for (int x = 0; x < width; ++x)
            for (int c = 0; c < 3; ++c) {
                int sum = 1 << 21;
                for (size_t i = 0; i < columns.values[x].size(); ++i)
                    sum += image.at(y, columns.first[x] + int(i))[c] * columns.values[x][i];
                wide.at(y, x)[c] = uint8_t(std::clamp(sum >> 22, 0, 255));
            }
    for (int y = 0; y < height; ++y)
        for (int x = 0; x < width; ++x)
            for (int c = 0; c < 3; ++c) {
                int sum = 1 << 21;
                for (size_t i = 0; i < rows.values[y].size(); ++i)
                    sum += wide.at(rows.first[y] + int(i), x)[c] * rows.values[y][i];
                result.at(y, x)[c] = uint8_t(std::clamp(sum >> 22, 0, 255));
            }
    return result;
}

// The shorter side gets min_size pixels, or fewer if the longer one would exceed max_size.
std::array<int, 2> input_size(const json& input, int height, int width) {
    if (input["rule"] != "shortest_edge")
        throw std::runtime_error("this program resizes by the rule shortest_edge only; the file has " + input["rule"].dump());
    const double min_size = input["min_size"], max_size = input["max_size"];
    if (min_size == 0) return {height, width};
    double scale = min_size / std::min(height, width);
    double h = height < width ? min_size : scale * height, w = height < width ? scale * width : min_size;
    if (std::max(h, w) > max_size) {
        scale = max_size / std::max(h, w);
        h *= scale, w *= scale;
    }
    return {std::max(1, int(h + 0.5)), std::max(1, int(w + 0.5))};
}

// (1, 3, H, W) floats, zero beyond the image.
std::vector<float> planes(const Image& image, bool bgr, int height, int width) {
    std::vector<float> values(size_t(3) * height * width);
    for (int c = 0; c < 3; ++c)
        for (int y = 0; y < image.height; ++y)
            for (int x = 0; x < image.width; ++x)
                values[(size_t(c) * height + y) * width + x] = image.at(y, x)[bgr ? 2 - c : c];
    return values;
}

int run(const char* file, const char* picture, float threshold) {
    Ort::Env env(ORT_LOGGING_LEVEL_ERROR, "pose");
    Ort::Session session(env, file, Ort::SessionOptions{});
    Ort::AllocatorWithDefaultOptions allocator;
    auto text = session.GetModelMetadata().LookupCustomMetadataMapAllocated("dynpose", allocator);
    if (!text) throw std::runtime_error(std::string(file) + ": it is not a dynpose export");
    const json described = json::parse(text.get());
    if (described["format"] != 1) throw std::runtime_error(std::string(file) + ": a later dynpose wrote it");

    const Image image = read_image(picture);
    const json& input = described["input"];
    const auto [height, width] = input_size(input, image.height, image.width);
    const int multiple = input["size_divisibility"];
    const int64_t padded_height = (height + multiple - 1) / multiple * multiple;
    const int64_t padded_width = (width + multiple - 1) / multiple * multiple;
    auto pixels = planes(resized(image, height, width), input["channels"] == "BGR", padded_height, padded_width);
    std::array<int64_t, 2> size{height, width}, size_shape{1, 2};
    std::array<int64_t, 4> shape{1, 3, padded_height, padded_width};
    const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    const Ort::Value inputs[] = {
        Ort::Value::CreateTensor<float>(memory, pixels.data(), pixels.size(), shape.data(), shape.size()),
        Ort::Value::CreateTensor<int64_t>(memory, size.data(), size.size(), size_shape.data(), size_shape.size()),
    };
    const auto input_names = described["inputs"].get<std::vector<std::string>>();
    const auto output_names = described["outputs"].get<std::vector<std::string>>();
    std::vector<const char*> given, wanted;
    for (const auto& name : input_names) given.push_back(name.c_str());
    for (const auto& name : output_names) wanted.push_back(name.c_str());
    const auto outputs = session.Run({}, given.data(), inputs, given.size(), wanted.data(), wanted.size());

    const float* boxes = outputs[0].GetTensorData<float>();
    const float* scores = outputs[1].GetTensorData<float>();
    const int64_t* classes = outputs[2].GetTensorData<int64_t>();
    const float* points = outputs[3].GetTensorData<float>();
    const int64_t count = outputs[4].GetTensorData<int64_t>()[0];
    const auto& names = described["keypoint_names"];
    const auto& class_names = described["class_names"];
    const float scale[] = {float(double(image.width) / width), float(double(image.height) / height)};
    const float side[] = {float(image.width), float(image.height)};
    const float shift = described.value("original_shift", 0.f);  // of some models, in pixels of the image
    for (int64_t person = 0; person < count && scores[person] >= threshold; ++person) {
        float box[4];
        for (int i = 0; i < 4; ++i) box[i] = std::clamp(boxes[4 * person + i] * scale[i % 2], 0.f, side[i % 2]);
        if (box[2] <= box[0] || box[3] <= box[1]) continue;  // outside the image
        for (int i = 0; i < 4; ++i) box[i] = std::clamp(box[i] + shift, 0.f, side[i % 2]);
        const auto label = size_t(classes[person]) < class_names.size()
                               ? class_names[classes[person]].get<std::string>()
                               : std::to_string(classes[person]);
        std::printf("%s %.6f  %.3f %.3f %.3f %.3f\n", label.c_str(), scores[person], box[0], box[1], box[2], box[3]);
        for (size_t k = 0; k < names.size(); ++k) {
            const float* point = points + (person * names.size() + k) * 3;
            const auto name = names[k].get<std::string>();
            const float x = point[0] * scale[0] + shift, y = point[1] * scale[1] + shift;
            std::printf("    %-16s %.3f %.3f  %.4f\n", name.c_str(), x, y, point[2]);
        }
    }
    return 0;
}

int main(int count, char** words) {
    if (count < 3) {
        std::fprintf(stderr, "usage: %s pose.onnx image [score]\n", words[0]);
        return 2;
    }
    try {
        return run(words[1], words[2], count > 3 ? std::strtof(words[3], nullptr) : 0.f);
    } catch (const std::exception& error) {  // also onnxruntime's
        std::fprintf(stderr, "pose: %s\n", error.what());
        return 2;
    }
}
