// Command crictl answers the two questions that kind asks a node's crictl: "inspecti IMAGE" and "images".
//
// It stands in for the program of that name, whose module Go's module proxy does not serve.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const (
	endpoint = "unix:///run/containerd/containerd.sock"
	timeout  = 30 * time.Second
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "crictl:", err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	connection, err := grpc.NewClient(endpoint, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	images := cri.NewImageServiceClient(connection)
	switch {
	case len(arguments) == 2 && arguments[0] == "inspecti":
		return inspect(ctx, images, arguments[1])
	case len(arguments) == 1 && arguments[0] == "images":
		return list(ctx, images)
	}
	return fmt.Errorf("usage: crictl inspecti IMAGE | crictl images")
}

func inspect(ctx context.Context, images cri.ImageServiceClient, name string) error {
	answer, err := images.ImageStatus(ctx, &cri.ImageStatusRequest{Image: &cri.ImageSpec{Image: name}})
	if err != nil {
		return err
	}
	image := answer.GetImage()
	if image == nil {
		return fmt.Errorf("no such image %q present", name)
	}
	status := map[string]any{
		"id":          image.Id,
		"repoTags":    image.RepoTags,
		"repoDigests": image.RepoDigests,
		"size":        fmt.Sprint(image.Size),
		"pinned":      image.Pinned,
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]any{"status": status})
}

func list(ctx context.Context, images cri.ImageServiceClient) error {
	answer, err := images.ListImages(ctx, &cri.ListImagesRequest{})
	if err != nil {
		return err
	}
	for _, image := range answer.Images {
		fmt.Println(image.Id, image.Size, image.RepoTags)
	}
	return nil
}
