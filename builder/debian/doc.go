// SPDX-License-Identifier: GPL-2.0-or-later

// Package debian makes a Debian root from a recipe with mmdebstrap(1). It knows
// where packages come from, what mmdebstrap is told, and what a root needs
// beside its packages to work read-only and for many machines at once. What
// happens to the finished root is its caller's business.
package debian
