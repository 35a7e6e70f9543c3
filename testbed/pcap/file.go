// SPDX-License-Identifier: GPL-2.0-or-later

// Package pcap records what travels on a lab's network, and reads it back as
// lines about DHCP, TFTP and the rest, enough to assert a conversation.
//
// The files are in the classic format that tcpdump and Wireshark read, see
// pcap-savefile(5).
package pcap

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"
)

const (
	magicMicro   = 0xa1b2c3d4
	magicNano    = 0xa1b23c4d
	linkEthernet = 1
	maxFrame     = 256 << 10
)

// Packet is a frame and when it was seen.
type Packet struct {
	Time   time.Time
	Length int // on the wire; Data may be shorter
	Data   []byte
}

// Writer writes a capture file. It is not safe for concurrent use.
type Writer struct{ w io.Writer }

// NewWriter writes the file's header to w.
func NewWriter(w io.Writer) (*Writer, error) {
	h := binary.LittleEndian.AppendUint32(nil, magicNano)
	h = binary.LittleEndian.AppendUint16(h, 2)
	h = binary.LittleEndian.AppendUint16(h, 4)
	h = append(h, make([]byte, 8)...) // time zone and accuracy: zero by convention
	h = binary.LittleEndian.AppendUint32(h, maxFrame)
	h = binary.LittleEndian.AppendUint32(h, linkEthernet)
	if _, err := w.Write(h); err != nil {
		return nil, fmt.Errorf("write capture: %w", err)
	}
	return &Writer{w}, nil
}

// Write appends a packet, in one write to the file.
func (w *Writer) Write(p Packet) error {
	b := binary.LittleEndian.AppendUint32(make([]byte, 0, 16+len(p.Data)), uint32(p.Time.Unix()))
	b = binary.LittleEndian.AppendUint32(b, uint32(p.Time.Nanosecond()))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(p.Data)))
	b = binary.LittleEndian.AppendUint32(b, uint32(p.Length))
	if _, err := w.w.Write(append(b, p.Data...)); err != nil {
		return fmt.Errorf("write capture: %w", err)
	}
	return nil
}

// Reader reads a capture file.
type Reader struct {
	r     *bufio.Reader
	order binary.ByteOrder
	unit  time.Duration
}

// NewReader reads the file's header.
func NewReader(r io.Reader) (*Reader, error) {
	br := bufio.NewReader(r)
	var h [24]byte
	if _, err := io.ReadFull(br, h[:]); err != nil {
		return nil, fmt.Errorf("read capture: header: %w", err)
	}
	pr := &Reader{r: br}
	for _, o := range []binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
		switch o.Uint32(h[:]) {
		case magicMicro:
			pr.order, pr.unit = o, time.Microsecond
		case magicNano:
			pr.order, pr.unit = o, time.Nanosecond
		}
	}
	if pr.order == nil {
		return nil, errors.New("read capture: not a pcap file")
	}
	if link := pr.order.Uint32(h[20:]) & 0xffff; link != linkEthernet {
		return nil, fmt.Errorf("read capture: link type %d, not Ethernet", link)
	}
	return pr, nil
}

// Next returns the next packet, or io.EOF after the last. A file that is still
// being written may end inside a packet: io.ErrUnexpectedEOF.
func (r *Reader) Next() (Packet, error) {
	var h [16]byte
	if _, err := io.ReadFull(r.r, h[:]); err == io.EOF {
		return Packet{}, io.EOF
	} else if err != nil {
		return Packet{}, fmt.Errorf("read capture: %w", err)
	}
	size := r.order.Uint32(h[8:])
	if size > maxFrame {
		return Packet{}, fmt.Errorf("read capture: packet of %d bytes", size)
	}
	p := Packet{
		Time:   time.Unix(int64(r.order.Uint32(h[0:])), int64(r.order.Uint32(h[4:]))*int64(r.unit)),
		Length: int(r.order.Uint32(h[12:])),
		Data:   make([]byte, size),
	}
	if _, err := io.ReadFull(r.r, p.Data); err != nil {
		return Packet{}, fmt.Errorf("read capture: %w", io.ErrUnexpectedEOF)
	}
	return p, nil
}

// Summaries reads a capture to its end and returns a line for each packet: the
// seconds since the first, then Summary. A packet that is cut off at the end is
// left out.
func Summaries(r io.Reader) ([]string, error) {
	pr, err := NewReader(r)
	if err != nil {
		return nil, err
	}
	var lines []string
	var first time.Time
	for {
		p, err := pr.Next()
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return lines, nil
		}
		if err != nil {
			return lines, err
		}
		if first.IsZero() {
			first = p.Time
		}
		lines = append(lines, fmt.Sprintf("%.3f %s", p.Time.Sub(first).Seconds(), Summary(p.Data)))
	}
}
