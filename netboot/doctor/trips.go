// SPDX-License-Identifier: GPL-2.0-or-later

package doctor

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	pin "github.com/pin/tftp/v3"

	"slate/builder/initramfs"
	"slate/dhcp"
	"slate/images"
	"slate/images/store"
	"slate/images/tree"
	"slate/netboot"
	"slate/netboot/api"
	"slate/netboot/boot"
	"slate/nfs"
)

// How long a try of a service may take; by HTTP longer, since the appliance packs the
// controller when it is asked for it first, which a busy machine is slow at.
const (
	tripTime = 10 * time.Second
	httpTime = time.Minute
)

// traveller uses the running appliance as a machine does.
type traveller struct {
	Options
	self  netip.Addr
	link  bool
	store *store.Store // nil: there is none
}

func (t *traveller) url(path string) string {
	return "http://" + net.JoinHostPort(t.self.String(), strconv.Itoa(t.Settings.HTTP.Port)) + path
}

// all makes every trip.
func (t *traveller) all(ctx context.Context) []Trip {
	var list []Trip
	for _, trip := range []struct {
		service string
		limit   time.Duration
		try     func(context.Context) (string, error)
	}{{"DHCP", tripTime, t.dhcp}, {"TFTP", tripTime, t.tftp}, {"HTTP", httpTime, t.http}, {"HTTPS", tripTime, t.https}, {"NFS", tripTime, t.nfs}} {
		if trip.service == "DHCP" && (t.Settings.DHCP.Mode == netboot.DHCPOff || !t.link) {
			continue // nothing to ask, or nothing leaves the interface
		}
		tctx, cancel := context.WithTimeout(ctx, trip.limit)
		text, err := trip.try(tctx)
		cancel()
		list = append(list, Trip{trip.service, text, err})
	}
	return list
}

func (t *traveller) dhcp(ctx context.Context) (string, error) {
	r, err := dhcp.Ask(ctx, t.Settings.Network.Interface, t.self)
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("no answer to a DISCOVER on %s in %.0f s", t.Settings.Network.Interface, tripTime.Seconds())
	}
	if err != nil {
		return "", err
	}
	if r.BootFile == "" {
		return "", fmt.Errorf("the answer to a UEFI machine names nothing to boot: %s", r)
	}
	return r.What(), nil
}

// tftp fetches a loader and compares it with the file.
func (t *traveller) tftp(ctx context.Context) (string, error) {
	files := netboot.LoaderFiles(t.Settings.Data)
	i := slices.IndexFunc(files, func(l netboot.LoaderFile) bool { return l.Required && l.Path != "" })
	if i < 0 {
		return "", errors.New("there is no loader to fetch")
	}
	want, err := os.ReadFile(files[i].Path)
	if err != nil {
		return "", err
	}
	c, err := pin.NewClient(net.JoinHostPort(t.self.String(), strconv.Itoa(t.Settings.TFTP.Port)))
	if err != nil {
		return "", err
	}
	c.SetTimeout(time.Second)
	c.SetRetries(3)
	c.SetBlockSize(1428)
	start := time.Now()
	from, err := c.Receive(files[i].Name, "octet")
	if err != nil {
		return "", fmt.Errorf("fetch %s: %w", files[i].Name, err)
	}
	var got bytes.Buffer
	if _, err := from.WriteTo(limited{&got, len(want), ctx}); err != nil {
		return "", fmt.Errorf("fetch %s: %w", files[i].Name, err)
	}
	if !bytes.Equal(got.Bytes(), want) {
		return "", fmt.Errorf("%s came with other content than %s", files[i].Name, files[i].Path)
	}
	return fmt.Sprintf("%s, %d KB in %.2f s", files[i].Name, len(want)/1000, time.Since(start).Seconds()), nil
}

// limited takes no more than it expects, and nothing once its context has ended.
type limited struct {
	b    *bytes.Buffer
	size int
	ctx  context.Context
}

func (l limited) Write(p []byte) (int, error) {
	if err := l.ctx.Err(); err != nil {
		return 0, err
	}
	if l.b.Len()+len(p) > l.size {
		return 0, errors.New("more comes than the file has")
	}
	return l.b.Write(p)
}

// http fetches the boot script, and of the controller and the kernel what shows
// that they can be fetched.
func (t *traveller) http(ctx context.Context) (string, error) {
	script, err := t.get(ctx, api.PathScript, 0, 64<<10)
	if err != nil {
		return "", err
	}
	if !bytes.HasPrefix(script, []byte("#!ipxe\n")) {
		return "", fmt.Errorf("%s is no boot script", t.url(api.PathScript))
	}
	pub, err := os.ReadFile(t.Settings.Key + netboot.PublicKeySuffix)
	if err != nil {
		return "", err
	}
	controller, err := initramfs.ControllerCPIO(initramfs.ControllerOptions{SitePub: pub})
	if err != nil {
		return "", err
	}
	if _, err = t.get(ctx, api.ControllerPath(sha256.Sum256(controller)), 0, 512); err != nil {
		return "", fmt.Errorf("controller: %w; the program or the key has changed since the appliance was started", err)
	}
	rec, err := t.published()
	if err != nil || rec.Kernel == nil {
		return "boot script and controller", err
	}
	want := make([]byte, min(512, rec.Kernel.Size))
	f, err := t.store.OpenBlob(rec.Kernel.Digest)
	if err != nil {
		return "", err
	}
	defer f.Close()
	offset := rec.Kernel.Size - int64(len(want))
	if _, err := f.ReadAt(want, offset); err != nil {
		return "", err
	}
	got, err := t.get(ctx, api.BlobPath(rec.Kernel.Digest), offset, len(want))
	if err != nil {
		return "", fmt.Errorf("kernel: %w", err)
	}
	if !bytes.Equal(got, want) {
		return "", fmt.Errorf("the kernel of %s has other content by HTTP than in the store", rec.Ref())
	}
	return "boot script, controller, kernel of " + rec.Ref(), nil
}

// https asks for the status over TLS, by the key that the site key vouches for.
func (t *traveller) https(ctx context.Context) (string, error) {
	keys, err := images.LoadPublicKeys(t.Settings.Key + netboot.PublicKeySuffix)
	if err != nil {
		return "", err
	}
	c, err := api.Secure(ctx, t.url(""), keys)
	if err != nil {
		return "", err
	}
	if _, err := c.Summary(ctx); err != nil {
		return "", err
	}
	return "status from " + c.Base + ", with the key that the site key vouches for", nil
}

// get fetches a part of what is at a path.
func (t *traveller) get(ctx context.Context, path string, offset int64, size int) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, t.url(path), nil)
	if err != nil {
		return nil, err
	}
	if path != api.PathScript {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", offset, offset+int64(size)-1))
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusPartialContent {
		return nil, fmt.Errorf("GET %s: %s", t.url(path), resp.Status)
	}
	return io.ReadAll(io.LimitReader(resp.Body, int64(size)))
}

// published is the version that is tried: the first in channel stable, else in any.
func (t *traveller) published() (images.Record, error) {
	if t.store == nil {
		return images.Record{}, errors.New("there is no image store")
	}
	names, err := t.store.Images()
	if err != nil {
		return images.Record{}, err
	}
	var other images.Ref
	for _, name := range names {
		channels, err := t.store.Channels(name)
		if err != nil {
			return images.Record{}, err
		}
		for c := range channels {
			other = images.Ref{Name: name, Channel: c}
			if c == boot.StableChannel {
				return t.store.Resolve(other)
			}
		}
	}
	if other.Name == "" {
		return images.Record{}, errors.New("no image is in a channel")
	}
	return t.store.Resolve(other)
}

// nfs mounts a version and reads a file of it.
func (t *traveller) nfs(ctx context.Context) (string, error) {
	rec, err := t.published()
	if err != nil {
		return "", err
	}
	list, err := t.store.Tree(ctx, rec.Tree)
	if err != nil {
		return "", err
	}
	path, blob, ok := firstFile(list)
	if !ok {
		return "", fmt.Errorf("%s has no file with anything in it", rec.Ref())
	}
	f, err := t.store.OpenBlob(blob.Digest)
	if err != nil {
		return "", err
	}
	defer f.Close()
	want := make([]byte, min(4096, blob.Size))
	if _, err := io.ReadFull(f, want); err != nil {
		return "", err
	}
	addr := net.JoinHostPort(t.self.String(), strconv.Itoa(t.Settings.NFS.Port))
	got, err := nfs.Fetch(ctx, addr, rec.Export(), path, len(want))
	if err != nil {
		return "", err
	}
	if !bytes.Equal(got.Content, want) || got.Size != uint64(blob.Size) {
		return "", fmt.Errorf("%s of %s has other content by NFS than in the store", path, rec.Ref())
	}
	return fmt.Sprintf("%s of %s", path, rec.Ref()), nil
}

// firstFile finds a file with content.
func firstFile(t *tree.Tree) (path string, blob images.Blob, ok bool) {
	for i := range uint32(t.Len()) {
		if t.Type(i) == tree.File && t.Blob(i).Size > 0 {
			return strings.TrimPrefix(t.Path(i), "./"), t.Blob(i), true
		}
	}
	return "", blob, false
}
