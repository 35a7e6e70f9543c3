// SPDX-License-Identifier: GPL-2.0-or-later

package netboot

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"slate/builder/initramfs"
	"slate/dhcp"
	"slate/images"
	"slate/images/store"
	"slate/images/transfer"
	"slate/netboot/api"
	"slate/netboot/boot"
	"slate/netboot/config"
	"slate/netboot/grub"
	"slate/netboot/httpd/front"
	"slate/netboot/ipxe"
	"slate/netboot/logs"
	"slate/netboot/nodes"
	"slate/netboot/state"
	"slate/netboot/state/bolt"
	"slate/nfs"
	"slate/tftp"
)

// Server is the appliance. Set the fields, then call Run once.
type Server struct {
	Settings Settings
	Version  string       // of the program, for the status
	Log      *slog.Logger // nil: silent
	Ready    func()       // called when every service answers; nil: nothing

	started  time.Time
	networks []network // at least one once open has been called; the first is the main one
	site     *site
	store    *store.Store
	state    state.Store
	nodes    *nodes.Registry
	logs     *logs.Store
	scripts  *ipxe.Scripts
	loaders  loaders
	sync     *transfer.Handler
	grub     *grub.Configs
	queue    *queue // for the kernel
	fetches  *queue // for the contents of versions
	exports  *exports
	meter    meter
	export   *nfs.Server

	rivals   rivals
	ipxeSeen sync.Map // MAC to the time of iPXE's last DHCP request

	key              ed25519.PrivateKey // of the site; nil: not here
	controller       []byte
	controllerDigest images.Digest

	tlsConfig *tls.Config
	secured   []byte // for api.PathTLS

	strangers strangers
	modes     sync.Map // node's name to modeEntry: what its configuration says
	news      news     // of what nodes are configured by

	listeners
}

// listeners are the open sockets of the services.
type listeners struct {
	// One for each network that the appliance is on.
	http []net.Listener
	tls  []net.Listener
	nfs  []net.Listener
	tftp []*net.UDPConn

	dhcp  []*dhcp.Conn
	admin net.Listener
}

// stopTimeout is how long the services may take to end their work.
const stopTimeout = 3 * time.Second

// Run serves until ctx is cancelled, and then returns nil. Whatever keeps the
// appliance from starting is reported at once and together: the error joins it.
func (s *Server) Run(ctx context.Context) error {
	if s.Log == nil {
		s.Log = slog.New(slog.DiscardHandler)
	}
	s.started = time.Now()
	defer s.close()
	if err := s.open(ctx); err != nil {
		return err
	}

	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.nodes.Run(gctx) })
	g.Go(func() error { return s.watchConfig(gctx) })
	handler := s.httpHandler()
	for _, l := range s.http {
		f := &front.Server{Prefix: api.PathBlob, Path: s.store.BlobPath}
		g.Go(func() error { return f.Serve(gctx, l, stopTimeout) })
		g.Go(func() error { return s.serveHTTP(gctx, f.Rest(l.Addr()), handler) })
	}
	for _, l := range s.tls {
		g.Go(func() error { return s.serveHTTP(gctx, tls.NewListener(l, s.tlsConfig), handler) })
	}
	g.Go(func() error { return s.serveHTTP(gctx, s.admin, s.adminHandler()) })
	g.Go(func() error { return s.serveTFTP(gctx) })
	g.Go(func() error { return s.serveNFS(gctx) })
	if s.Settings.DHCP.Mode != DHCPOff {
		g.Go(func() error { return s.serveDHCP(gctx) })
		for _, n := range s.local() {
			g.Go(func() error { return s.serveRouterAdvertisements(gctx, n.iface) })
		}
	}
	s.Log.Info("the appliance is ready", "addr", s.addr(), "interface", s.Settings.Network.Interface,
		"dhcp", s.Settings.DHCP.Mode, "tftp", s.Settings.TFTP.Port, "http", s.Settings.HTTP.Port, "https", s.Settings.HTTPS.Port, "nfs", s.Settings.NFS.Port)
	if s.Ready != nil {
		s.Ready()
	}
	if err := notify(notifyReady); err != nil {
		s.Log.Warn("the service manager was not told that the appliance is ready", "err", err)
	}
	context.AfterFunc(ctx, func() {
		s.Log.Info("the appliance stops")
		notify(notifyStopping)
	})
	return g.Wait()
}

// open finds and opens all that serving needs. It goes on after an error, so
// that the admin sees everything that is wrong in one go.
func (s *Server) open(ctx context.Context) error {
	var errs []error
	try := func(err error) { errs = append(errs, err) }

	try(s.findNetworks())
	var err error
	s.site, err = openSite(s.Settings.ConfigD, s.Log)
	try(err)
	try(s.openStore(ctx))
	s.queue = newQueue(s.Settings.Queue.Boots, turnLimit)
	s.fetches = newQueue(s.Settings.Queue.Fetches, idleLimit)
	s.exports = &exports{store: s.store}
	s.export = s.newExport()
	s.meter = meter{root: "/", now: time.Now}
	s.loaders = loaders{own: filepath.Join(s.Settings.Data, LoaderDir)}
	try(s.loaders.check())
	s.scripts, err = ipxe.New()
	try(err)
	s.grub, err = grub.New()
	try(err)
	if len(s.networks) > 0 {
		try(s.openTLS())
		try(s.listen(ctx))
	}
	if s.nodes != nil { // else another appliance may use this data directory
		s.admin, err = listenAdmin(filepath.Join(s.Settings.Data, api.AdminSocket))
		try(err)
	}
	return errors.Join(errs...)
}

func (s *Server) openStore(ctx context.Context) error {
	var err error
	if s.store, err = store.Open(s.Settings.Data, store.Options{Log: s.Log}); err != nil {
		return err
	}
	db, err := bolt.Open(filepath.Join(s.Settings.Data, "state.db"))
	if err != nil {
		return err
	}
	s.state = db
	s.nodes, err = nodes.Open(ctx, s.state, s.Log, func(mac, serial string) string {
		return s.site.current().Node("").Etc.NodeName(mac, serial)
	})
	if err != nil {
		return err
	}
	s.nodes.Named = func(f nodes.Facts) string { return s.site.recent().NodeOf(identityOf(f)) }
	if s.logs, err = logs.Open(filepath.Join(s.Settings.Data, LogDir)); err != nil {
		return err
	}
	s.nodes.Renamed = func(from, to string) {
		if err := s.logs.Rename(from, to); err != nil {
			s.Log.Error("the logs of a node stay under its old name", "node", to, "before", from, "err", err)
		}
	}
	if err := s.openController(); err != nil {
		return err
	}
	if s.site == nil || s.site.good == nil {
		return nil // reported already
	}
	_, _, err = s.imageOf(ctx, s.site.current().Node(""))
	return err
}

// openController makes the controller's part of the initramfs.
func (s *Server) openController() error {
	pub, err := os.ReadFile(s.Settings.Key + PublicKeySuffix)
	if err == nil {
		_, err = images.ParsePublicKeys(pub)
	}
	if err != nil {
		return &settingsError{fmt.Errorf("site key: %w", err), "make one with: slate init"}
	}
	if s.key, err = images.LoadKey(s.Settings.Key); err != nil {
		s.Log.Warn("the private site key is not here: nodes get no configuration from this appliance, and prefer others that can sign", "err", err)
	}
	s.controller, err = initramfs.ControllerCPIO(initramfs.ControllerOptions{SitePub: pub})
	s.controllerDigest = sha256.Sum256(s.controller)
	return err
}

// listen opens the ports on all networks that the appliance is on.
func (s *Server) listen(ctx context.Context) error {
	var errs []error
	for _, n := range s.local() {
		tcp := func(what string, lc net.ListenConfig, port int, to *[]net.Listener) {
			l, err := lc.Listen(ctx, "tcp4", net.JoinHostPort(n.addr.String(), strconv.Itoa(port)))
			if err != nil {
				errs = append(errs, PortError(what, "tcp", port, err))
				return
			}
			*to = append(*to, l)
		}
		tcp("http", httpListener, s.Settings.HTTP.Port, &s.http)
		tcp("https", net.ListenConfig{}, s.Settings.HTTPS.Port, &s.tls)
		tcp("nfs", net.ListenConfig{}, s.Settings.NFS.Port, &s.nfs)
		c, err := tftp.Listen(ctx, netip.AddrPortFrom(n.addr, uint16(s.Settings.TFTP.Port)))
		if err != nil {
			errs = append(errs, err)
			continue
		}
		s.tftp = append(s.tftp, c)
	}
	var err error
	if s.dhcp, err = s.listenDHCP(ctx); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (s *Server) close() {
	if s.sync != nil {
		s.sync.Wait() // packs that are still being made
	}
	for _, l := range slices.Concat(s.http, s.tls, s.nfs, []net.Listener{s.admin}) {
		if l != nil {
			l.Close()
		}
	}
	for _, c := range s.tftp {
		c.Close()
	}
	for _, c := range s.dhcp {
		c.Close()
	}
	if s.logs != nil {
		s.logs.Close()
	}
	if s.state != nil {
		s.state.Close()
	}
}

// imageOf finds the version that a node with the given configuration boots, and why.
func (s *Server) imageOf(ctx context.Context, conf *config.Node) (images.Record, string, error) {
	published, err := s.published()
	if err != nil {
		return images.Record{}, "", err
	}
	ref, reason, err := boot.ChooseImage(conf.Boot.Image, published)
	if err != nil {
		return images.Record{}, "", err
	}
	rec, err := s.store.Resolve(ref)
	if err != nil {
		return images.Record{}, "", fmt.Errorf("image %s (%s): %w", ref, reason, err)
	}
	return rec, reason, nil
}

func (s *Server) published() (map[string][]string, error) { return Published(s.store) }

// Published maps the names of a store's images to their channels.
func Published(st *store.Store) (map[string][]string, error) {
	names, err := st.Images()
	if err != nil {
		return nil, err
	}
	out := map[string][]string{}
	for _, name := range names {
		channels, err := st.Channels(name)
		if err != nil {
			return nil, err
		}
		out[name] = nil
		for c := range channels {
			out[name] = append(out[name], c)
		}
	}
	return out, nil
}

// bootServer is the appliance as a machine reaches it at one of its addresses.
func (s *Server) bootServer(self netip.Addr) boot.Server {
	return boot.Server{Addr: self, HTTPPort: s.Settings.HTTP.Port, Has: s.loaders.has}
}

// serveHTTP serves until ctx ends, which ends the requests that wait for something too.
func (s *Server) serveHTTP(ctx context.Context, l net.Listener, h http.Handler) error {
	srv := &http.Server{
		Handler:           h,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		ErrorLog:          slog.NewLogLogger(s.Log.Handler(), slog.LevelDebug),
	}
	stop := context.AfterFunc(ctx, func() {
		wait, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		if srv.Shutdown(wait) != nil {
			srv.Close()
		}
	})
	defer stop()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("http: %w", err)
	}
	return nil
}
