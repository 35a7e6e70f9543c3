// SPDX-License-Identifier: GPL-2.0-or-later

package archive

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"slate/images"
	"slate/images/store"
	"slate/images/tree"
)

// A Container is a container image that has been found but not read yet.
type Container struct {
	Name string // where it comes from, with its digest
	Arch string
	img  v1.Image
}

// OpenContainer finds a container image. Where is one of
//
//	oci:DIR[:TAG]           an OCI layout directory
//	docker-archive:FILE     what docker save writes
//	docker://NAME[:TAG]     an image in a registry
//
// From what is built for several machines, the one for linux and arch is taken.
func OpenContainer(ctx context.Context, where, arch string) (*Container, error) {
	kind, rest, _ := strings.Cut(where, ":")
	var img v1.Image
	var err error
	switch {
	case rest == "":
		err = errors.New("want oci:DIR[:TAG], docker-archive:FILE or docker://NAME[:TAG]")
	case kind == "oci":
		img, err = fromLayout(rest, arch)
	case kind == "docker-archive":
		img, err = tarball.ImageFromPath(rest, nil)
	case kind == "docker":
		img, err = fromRegistry(ctx, strings.TrimPrefix(rest, "//"), arch)
	default:
		err = fmt.Errorf("unknown kind %q; want oci, docker-archive or docker", kind)
	}
	if err != nil {
		return nil, fmt.Errorf("container image %s: %w", where, err)
	}
	return describe(where, img)
}

// IsContainer reports whether where has the form that OpenContainer takes.
func IsContainer(where string) bool {
	kind, rest, found := strings.Cut(where, ":")
	return found && rest != "" && (kind == "oci" || kind == "docker-archive" || kind == "docker" && strings.HasPrefix(rest, "//"))
}

func describe(where string, img v1.Image) (*Container, error) {
	d, err := img.Digest()
	if err != nil {
		return nil, fmt.Errorf("container image %s: %w", where, err)
	}
	conf, err := img.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("container image %s: %w", where, err)
	}
	return &Container{Name: where + "@" + d.String(), Arch: conf.Architecture, img: img}, nil
}

func fromRegistry(ctx context.Context, ref, arch string) (v1.Image, error) {
	r, err := name.ParseReference(ref)
	if err != nil {
		return nil, err
	}
	return remote.Image(r, remote.WithContext(ctx), remote.WithPlatform(v1.Platform{OS: "linux", Architecture: arch}))
}

// refName is the annotation by which a layout's index names its images.
const refName = "org.opencontainers.image.ref.name"

func fromLayout(where, arch string) (v1.Image, error) {
	dir, tag := where, ""
	if _, err := os.Stat(where); err != nil {
		if i := strings.LastIndexByte(where, ':'); i > 0 {
			dir, tag = where[:i], where[i+1:]
		}
	}
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		return nil, err
	}
	return fromIndex(index, tag, arch)
}

// fromIndex takes the image called tag; without one, the only image for the
// architecture.
func fromIndex(index v1.ImageIndex, tag, arch string) (v1.Image, error) {
	m, err := index.IndexManifest()
	if err != nil {
		return nil, err
	}
	var fit []v1.Descriptor
	var have []string
	for _, d := range m.Manifests {
		label := d.Annotations[refName]
		if d.Platform != nil {
			label += " " + d.Platform.String()
		}
		have = append(have, strings.TrimSpace(label+" "+d.Digest.String()))
		if tag != "" && d.Annotations[refName] != tag {
			continue
		}
		if d.Platform != nil && d.Platform.Architecture != "" && d.Platform.Architecture != "unknown" && d.Platform.Architecture != arch {
			continue
		}
		if d.Platform != nil && d.Platform.Architecture == "unknown" { // a note about the build, no image
			continue
		}
		fit = append(fit, d)
	}
	if len(fit) != 1 {
		return nil, &PickError{Fit: len(fit), Arch: arch, Tag: tag, Have: have}
	}
	if fit[0].MediaType.IsIndex() {
		sub, err := index.ImageIndex(fit[0].Digest)
		if err != nil {
			return nil, err
		}
		return fromIndex(sub, "", arch)
	}
	return index.Image(fit[0].Digest)
}

// A PickError says that a layout does not have just one image that fits.
type PickError struct {
	Fit       int
	Arch, Tag string
	Have      []string
}

func (e *PickError) Error() string {
	what := "for " + e.Arch
	if e.Tag != "" {
		what = fmt.Sprintf("called %q %s", e.Tag, what)
	}
	if e.Fit == 0 {
		return "holds no image " + what
	}
	return fmt.Sprintf("holds %d images %s", e.Fit, what)
}

// Hint lists what the layout holds.
func (e *PickError) Hint() string { return "it holds " + strings.Join(e.Have, "; ") }

// Add brings the container's tree into the store: its layers over each other,
// with what upper ones take away from lower ones gone.
func (c *Container) Add(ctx context.Context, st *store.Store) (*tree.Tree, images.Digest, error) {
	layers, err := c.img.Layers()
	if err != nil {
		return nil, images.Digest{}, fmt.Errorf("%s: %w", c.Name, err)
	}
	var list []store.Layer
	for i, l := range layers {
		d, err := l.Digest()
		if err != nil {
			return nil, images.Digest{}, fmt.Errorf("%s: layer %d: %w", c.Name, i, err)
		}
		// What Compressed returns is checked against the digest at its end.
		list = append(list, store.Layer{Name: fmt.Sprintf("layer %d, %s", i, d), Open: l.Compressed})
	}
	return st.AddLayers(ctx, list)
}

// OCI writes a version as an OCI image with a single layer into a layout
// directory, which must not be there yet. Work is a directory for the layer
// while it is made; "" is the directory's parent.
func OCI(ctx context.Context, blobs Blobs, t *tree.Tree, rec images.Record, dir string) error {
	if _, err := os.Lstat(dir); err == nil {
		return &os.PathError{Op: "export", Path: dir, Err: os.ErrExist}
	}
	tmp, err := os.CreateTemp(filepath.Dir(dir), ".layer-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	defer tmp.Close()
	zw, err := gzip.NewWriterLevel(tmp, gzip.BestSpeed)
	if err != nil {
		return err
	}
	if err := Tar(ctx, blobs, t, zw); err != nil {
		return err
	}
	if err := zw.Close(); err != nil {
		return err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return os.Open(tmp.Name()) }, tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return err
	}
	img, err := ociImage(layer, rec)
	if err != nil {
		return err
	}
	l, err := layout.Write(dir, empty.Index)
	if err != nil {
		return err
	}
	return l.AppendImage(img, layout.WithAnnotations(map[string]string{refName: fmt.Sprint(rec.Number)}),
		layout.WithPlatform(v1.Platform{OS: "linux", Architecture: rec.Arch}))
}

func ociImage(layer v1.Layer, rec images.Record) (v1.Image, error) {
	img := mutate.MediaType(empty.Image, types.OCIManifestSchema1)
	img = mutate.ConfigMediaType(img, types.OCIConfigJSON)
	img, err := mutate.Append(img, mutate.Addendum{Layer: layer, MediaType: types.OCILayer,
		History: v1.History{Created: v1.Time{Time: rec.Time}, CreatedBy: "slate " + rec.Ref() + " " + rec.Tree.String()}})
	if err != nil {
		return nil, err
	}
	conf, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	conf = conf.DeepCopy()
	conf.OS, conf.Architecture, conf.Created = "linux", rec.Arch, v1.Time{Time: rec.Time.Truncate(time.Second)}
	conf.Config.Cmd = []string{"/sbin/init"}
	conf.Config.Labels = map[string]string{"slate.version": rec.Ref(), "slate.tree": rec.Tree.String()}
	return mutate.ConfigFile(img, conf)
}
